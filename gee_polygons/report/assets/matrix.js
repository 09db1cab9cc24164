// The similarity of each year of a site to each other year, as a coloured matrix.

import { viridis } from './colors.js';
import { report } from './data.js';
import { svgElement } from './elements.js';
import { decimals, isKnown, t } from './text.js';

const CELL = 34;
const MARGIN = 44;
const READABLE_IN_BLACK = 0.43; // above this, black on viridis has a contrast of 4.5 : 1; below it, white has

export function similarityMatrix(site) {
  const years = report.years;
  const size = MARGIN + years.length * CELL;
  const svg = svgElement('svg', {
    viewBox: `0 0 ${size} ${size}`,
    class: 'chart',
    role: 'img',
    'aria-label': t('Similarity of each year to each other year; 1 = the same'),
  });
  const lowest = Math.min(...site.series.similarities.filter(isKnown), 0.9);
  years.forEach((year, row) => {
    const middle = MARGIN + row * CELL + CELL / 2;
    const shortYear = `'${String(year).slice(2)}`;
    svg.append(
      svgElement('text', { x: MARGIN - 6, y: middle + 4, 'text-anchor': 'end' }, year),
      svgElement('text', { x: middle, y: MARGIN - 8, 'text-anchor': 'middle' }, shortYear),
    );
    for (let column = 0; column < years.length; column++) addCell(svg, site, row, column, lowest);
  });
  return svg;
}

function addCell(svg, site, row, column, lowest) {
  const years = report.years;
  const later = Math.max(row, column);
  const earlier = Math.min(row, column);
  const value = site.series.similarities[(later * (later + 1)) / 2 + earlier]; // the lower triangle, row by row
  const fraction = isKnown(value) ? (value - lowest) / (1 - lowest || 1) : 0;
  const x = MARGIN + column * CELL;
  const y = MARGIN + row * CELL;
  const fill = isKnown(value) ? viridis(fraction) : '#e3e7e5';
  const cell = svgElement('rect', { x, y, width: CELL - 1, height: CELL - 1, fill });
  const text = isKnown(value) ? decimals(value, 3) : t('no data');
  cell.append(svgElement('title', {}, `${years[row]}, ${years[column]}: ${text}`));
  svg.append(cell);
  if (!isKnown(value)) return;
  const ink = fraction > READABLE_IN_BLACK ? '#000' : '#fff';
  const place = { x: x + CELL / 2, y: y + CELL / 2 + 4, 'text-anchor': 'middle' };
  const style = `font-size:11px;pointer-events:none;fill:${ink}`;
  svg.append(svgElement('text', { ...place, style }, value > 0.9995 ? '1' : value.toFixed(2).slice(1)));
}
