// Where a site is: its coordinates, as links to the phone's map and to OpenStreetMap.

import { element } from './elements.js';
import { isKnown } from './text.js';

export function placeLinks(site) {
  if (!isKnown(site.lat)) return [];
  const point = `${site.lat},${site.lon}`;
  const phone = `geo:${point}?q=${point}(${encodeURIComponent(site.id)})`;
  const map = `https://www.openstreetmap.org/?mlat=${site.lat}&mlon=${site.lon}#map=15/${site.lat}/${site.lon}`;
  return [
    element('a', { href: phone }, `${site.lat.toFixed(5)}, ${site.lon.toFixed(5)}`),
    ' \u00b7 ',
    element('a', { href: map, target: '_blank', rel: 'noopener noreferrer' }, 'OpenStreetMap'),
  ];
}
