// Names on the map: places, sites to visit, then the largest sites, each where it covers no other name.

import { report, sites } from './data.js';
import { svgElement } from './elements.js';
import { isKnown } from './text.js';

const MOST_NAMES = 30;
const MOST_TRIED = 1000; // names in view
const SIZE_PX = 11;
const LETTER_PX = 6.2; // mean width
const LONGEST = 24; // letters
let names = null;

function named(text, points, kind) {
  const [west, north, perLon, perLat] = report.map.origin;
  const mean = (key) => points.reduce((sum, point) => sum + point[key], 0) / points.length;
  const short = text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}\u2026` : text;
  return { text: short, kind, x: (mean('lon') - west) * perLon, y: (north - mean('lat')) * perLat };
}

// In the order in which they get room.
function allNames() {
  const drawn = sites.filter((site) => site.path && isKnown(site.lat));
  const places = new Map();
  for (const site of drawn) if (site.place) places.set(site.place, [...(places.get(site.place) || []), site]);
  const visited = new Set(report.visit);
  const rank = (site) => (visited.has(site.id) ? 1e9 : 0) + (site.area_ha || 0);
  const inOrder = [...drawn].sort((a, b) => rank(b) - rank(a));
  return [
    ...[...places].map(([place, members]) => named(place, members, 'town')),
    ...inOrder.map((site) => named(site.id, [site], '')),
  ];
}

// Write the names that have room in a view, given as left, top, width, height; `unit` is a pixel in map units.
export function showNames(group, view, unit) {
  names = names || allNames();
  const [left, top, width, height] = view;
  const boxes = [[left, top + height - 20 * unit, left + width / 4, top + height]]; // the scale bar
  const texts = [];
  let tried = 0;
  for (const { text, kind, x, y } of names) {
    if (x < left || x > left + width || y < top || y > top + height) continue;
    if (texts.length >= MOST_NAMES || tried++ > MOST_TRIED) break;
    const half = (text.length * LETTER_PX * unit) / 2;
    const box = [x - half, y - SIZE_PX * unit, x + half, y + 3 * unit];
    const outside = box[0] < left || box[2] > left + width || box[1] < top;
    if (outside || boxes.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3])) continue;
    boxes.push(box);
    const style = `font-size:${SIZE_PX * unit}px;stroke-width:${3 * unit}px`;
    texts.push(svgElement('text', { x, y, style, class: `label ${kind}`, 'text-anchor': 'middle' }, text));
  }
  group.replaceChildren(...texts);
}
