// Line charts of a site. A year without data breaks the shaded interval and makes the line dashed.

import { report } from './data.js';
import { svgElement } from './elements.js';
import { decimals, isKnown, shareText, t } from './text.js';

const WIDTH = 480;
const HEIGHT = 230;
const LEFT = 46;
const RIGHT = WIDTH - 24;
const TOP = 12;
const BOTTOM = HEIGHT - 30;
const DARK = '#1d2a26'; // no group's colour
const LIGHT = '#9aa5a0';

// Make a chart with gridlines and the years below; x and y turn years and values into coordinates.
function emptyChart(years, low, high, tickText, description) {
  const svg = svgElement('svg', {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    class: 'chart',
    role: 'img',
    'aria-label': description,
  });
  const first = years[0];
  const last = years[years.length - 1];
  const x = (year) => LEFT + (RIGHT - LEFT) * (first === last ? 0.5 : (year - first) / (last - first));
  const y = (value) => TOP + (BOTTOM - TOP) * (1 - (value - low) / (high - low));
  for (let i = 0; i <= 4; i++) {
    const value = low + ((high - low) * i) / 4;
    const height = y(value);
    svg.append(
      svgElement('line', { x1: LEFT, x2: RIGHT, y1: height, y2: height, stroke: '#dfe6e2' }),
      svgElement('text', { x: LEFT - 6, y: height + 4, 'text-anchor': 'end' }, tickText(value)),
    );
  }
  const every = Math.ceil(years.length / 9);
  for (let i = 0; i < years.length; i += every) {
    svg.append(svgElement('text', { x: x(years[i]), y: HEIGHT - 8, 'text-anchor': 'middle' }, years[i]));
  }
  return { svg, years, x, y };
}

function addLine(chart, values, color, hint) {
  const { svg, years, x, y } = chart;
  const known = values.map((_, i) => i).filter((i) => isKnown(values[i]));
  known.slice(1).forEach((to, i) => {
    const from = known[i];
    const gap = years[to] - years[from] > 1;
    svg.append(
      svgElement('line', {
        x1: x(years[from]),
        y1: y(values[from]),
        x2: x(years[to]),
        y2: y(values[to]),
        stroke: color,
        'stroke-width': gap ? 1.4 : 2.2,
        'stroke-dasharray': gap ? '3 4' : '',
        class: gap ? 'gap' : '',
      }),
    );
  });
  for (const i of known) {
    const dot = svgElement('circle', { cx: x(years[i]), cy: y(values[i]), r: 3.4, fill: color });
    dot.append(svgElement('title', {}, `${years[i]}: ${hint(i)}`));
    svg.append(dot);
  }
}

// Split positions into runs of consecutive years.
function consecutiveRuns(years, positions) {
  const runs = [];
  for (const i of positions) {
    const run = runs[runs.length - 1];
    if (run && years[i] - years[run[run.length - 1]] === 1) run.push(i);
    else runs.push([i]);
  }
  return runs;
}

function addInterval(chart, low, high) {
  const { svg, years, x, y } = chart;
  const known = years.map((_, i) => i).filter((i) => isKnown(low[i]));
  for (const run of consecutiveRuns(years, known)) {
    // a single year gets a narrow bar
    const corners = run.length > 1
      ? run.map((i) => [x(years[i]), i])
      : [-3, 3].map((dx) => [x(years[run[0]]) + dx, run[0]]);
    const upper = corners.map(([left, i]) => `${left} ${y(high[i])}`);
    const lower = corners.map(([left, i]) => `${left} ${y(low[i])}`).reverse();
    const path = `M${[...upper, ...lower].join('L')}Z`;
    svg.append(svgElement('path', { d: path, fill: DARK, opacity: 0.15, class: 'run' }));
  }
}

function addStart(chart, startYear, shares) {
  const { svg, years, x, y } = chart;
  const at = x(startYear);
  // the word must not cover the site's line, nor that of the reference range
  const lineIsHigh = shares[years.indexOf(startYear)] > 0.5;
  const rangeIsNear = isKnown(report.range) && Math.abs(report.range - 0.65) < 0.1;
  const height = lineIsHigh ? 0.03 : rangeIsNear ? 0.4 : 0.6;
  const atRightEnd = at > 400;
  svg.append(
    svgElement('line', { x1: at, x2: at, y1: y(0), y2: y(1), stroke: '#5a6964', 'stroke-dasharray': '2 4' }),
    svgElement(
      'text',
      { x: at + (atRightEnd ? -4 : 4), y: y(height), 'text-anchor': atRightEnd ? 'end' : 'start' },
      t('start'),
    ),
  );
}

export function shareChart(site) {
  const years = report.years;
  const [share, share_low, share_high, similarity] = ['share', 'share_low', 'share_high', 'similarity']
    .map((name) => site.series[name] || []);
  const description = t('Share of recovery, year by year; the figures are in the table below');
  const chart = emptyChart(years, 0, 1, (value) => `${Math.round(100 * value)}%`, description);
  addInterval(chart, share_low, share_high);
  if (isKnown(report.range)) {
    const height = chart.y(report.range);
    const line = { x1: LEFT, x2: RIGHT, y1: height, y2: height, stroke: DARK, 'stroke-dasharray': '8 4' };
    chart.svg.append(svgElement('line', line));
  }
  const start = site.start_year;
  if (isKnown(start) && start >= years[0] && start <= years[years.length - 1]) addStart(chart, start, share);
  addLine(chart, share, DARK, (i) => {
    const text = shareText(share[i], share_low[i], share_high[i]);
    const similar = t('similarity to the references {now}', { now: decimals(similarity[i], 2) });
    return isKnown(similarity[i]) ? `${text}; ${similar}` : text;
  });
  return chart.svg;
}

export function changeChart(site) {
  const { angle_deg = [], relative_deg = [] } = site.series;
  const largest = Math.max(20, ...angle_deg.concat(relative_deg).filter(isKnown));
  const top = Math.ceil(largest / 20) * 20;
  const description = t(
    'Angle to the site\u2019s first year, year by year, as measured and relative to the background',
  );
  const chart = emptyChart(report.years, 0, top, (value) => `${Math.round(value)}°`, description);
  addLine(chart, angle_deg, LIGHT, (i) => t('{angle}° as measured', { angle: decimals(angle_deg[i], 0) }));
  const hint = (i) => t('{angle}° relative to the background', { angle: decimals(relative_deg[i], 0) });
  addLine(chart, relative_deg, DARK, hint);
  return chart.svg;
}
