// Colours of groups, of kinds of change and of shares, the order in which they are listed, and coloured labels.

import { element } from './elements.js';

export const NO_VALUE_COLOR = '#fff';
export const NO_EVIDENCE_COLOR = '#7c8a84'; // on the map: lighter than the label's, whose text is white
const LABEL_COLOR = '#6b7773';

export const GROUP_COLORS = {
  declining: '#b3261e',
  stalled: '#946010',
  'no evidence': LABEL_COLOR,
  recovering: '#0b6e4f',
  'at reference': '#3d5a99',
};
export const CHANGE_COLORS = {
  persistent: '#0072b2',
  'last year only': '#b04a10',
  returned: '#a2528a',
  none: '#66746d',
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
  return DISPLAY_NAMES[value] || value;
}

// The viridis colour of a number from 0 to 1.
export function viridis(fraction) {
  const position = Math.max(0, Math.min(1, fraction)) * 4;
  const index = Math.min(3, Math.floor(position));
  const mix = position - index;
  const channels = VIRIDIS[index].map((value, i) => Math.round(value + (VIRIDIS[index + 1][i] - value) * mix));
  return `rgb(${channels.join(',')})`;
}

export function label(value, color) {
  const style = `background:${color || LABEL_COLOR}`;
  return element('span', { class: color === NO_VALUE_COLOR ? 'tag plain' : 'tag', style }, displayName(value));
}
