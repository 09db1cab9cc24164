// The pictures of a site: before and after side by side, and below them all years.

import { element } from './elements.js';
import { isKnown, t } from './text.js';

export function pictureOf(site, frame, caption) {
  const alt = `${site.id}: ${caption}`;
  return element('figure', {}, element('img', { src: frame.src, alt }), element('figcaption', {}, caption));
}

// The last picture from before the start, else the first; and the last.
export function beforeAfter(site) {
  const frames = site.pictures || [];
  if (frames.length < 2) return [];
  const last = frames[frames.length - 1];
  const earlier = frames.filter((frame) => frame !== last && isKnown(site.start_year) && frame.year < site.start_year);
  const first = earlier.pop() || frames[0];
  const named = [[first, 'before: {year}'], [last, 'after: {year}']];
  return [
    element('div', { class: 'pair' }, ...named.map(([f, name]) => pictureOf(site, f, t(name, { year: f.year })))),
  ];
}
