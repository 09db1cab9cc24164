// Colours of groups, of kinds of change and of shares, the order in which they are listed, and coloured labels.

import { report } from './data.js';
import { element } from './elements.js';
import { t } from './text.js';

export const NO_VALUE_COLOR = '#fff';
const LABEL_COLOR = '#6b7773';

export const GROUP_COLORS = report.groupColors;
export const NO_EVIDENCE_COLOR = GROUP_COLORS['no evidence'];
// none of them is a group's colour
export const CHANGE_COLORS = {
  persistent: '#7b2d6b',
  'last year only': '#d9b8d4',
  returned: '#3f8f7f',
  none: '#c4cbc7',
  'no data': NO_VALUE_COLOR,
};

// What needs attention comes first: columns of these values are sorted in this order, not by the alphabet.
export const ORDERS = {
  group: Object.keys(GROUP_COLORS),
  change: Object.keys(CHANGE_COLORS),
  role: ['restoration', 'other', 'control', 'reference'],
};

const DISPLAY_NAMES = { none: 'no change found', persistent: 'lasting' };

const VIRIDIS = [
  [68, 1, 84],
  [59, 82, 139],
  [33, 145, 140],
  [94, 201, 98],
  [253, 231, 37],
];

export function displayName(value) {
  return t(DISPLAY_NAMES[value] || value);
}

// The viridis colour of a number from 0 to 1.
export function viridis(fraction) {
  const position = Math.max(0, Math.min(1, fraction)) * 4;
  const index = Math.min(3, Math.floor(position));
  const mix = position - index;
  const channels = VIRIDIS[index].map((value, i) => Math.round(value + (VIRIDIS[index + 1][i] - value) * mix));
  return `rgb(${channels.join(',')})`;
}

// Whether black is easier to read on a colour than white: 0.18 is where their contrasts are equal (WCAG 2).
function isLight(color) {
  const digits = color.length < 5 ? color.slice(1).replace(/./g, '$&$&') : color.slice(1);
  const [red, green, blue] = [0, 2, 4].map((at) => (parseInt(digits.slice(at, at + 2), 16) / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18;
}

export function label(value, color) {
  const fill = color || LABEL_COLOR;
  const style = `background:${fill};color:${isLight(fill) ? '#000' : '#fff'}`;
  return element('span', { class: color === NO_VALUE_COLOR ? 'tag plain' : 'tag', style }, displayName(value));
}
