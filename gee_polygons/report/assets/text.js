// Numbers as text. A missing number is an en dash.

const MISSING = '\u2013';

export function isKnown(value) {
  return value !== null && value !== undefined;
}

export function orDash(value) {
  return isKnown(value) ? value : MISSING;
}

export function decimals(value, digits) {
  return isKnown(value) ? value.toFixed(digits) : MISSING;
}

export function percent(fraction) {
  return isKnown(fraction) ? `${Math.round(100 * fraction)}%` : MISSING;
}

export function signedPercent(fraction) {
  const sign = fraction >= 0 ? '+' : '\u2212';
  return `${sign}${Math.abs(100 * fraction).toFixed(1)}%`;
}

export function thousands(number) {
  return number.toLocaleString('en');
}

// "1 site", "2 sites"
export function count(number, noun) {
  return `${thousands(number)} ${noun}${number === 1 ? '' : 's'}`;
}

export function hectares(area) {
  if (!isKnown(area)) return MISSING;
  return area < 0.1 ? '<0.1' : decimals(area, 1);
}

// A false-discovery rate: small rates keep a decimal.
export function rateText(q) {
  if (!isKnown(q)) return MISSING;
  if (q < 0.001) return '<0.1%';
  return `${(100 * q).toFixed(q < 0.1 ? 1 : 0)}%`;
}

// Intervals are cut to 0..1. One that is cut at both ends would look like certainty, so it is given as a bound.
export function boundText(low, high) {
  if (low >= 0.995 && high >= 0.995) return '99% or more';
  if (low <= 0.005 && high <= 0.005) return '1% or less';
  return '';
}

export function shareText(share, low, high) {
  if (!isKnown(share)) return 'no share';
  if (!isKnown(low)) return percent(share);
  return boundText(low, high) || `${percent(share)} (${percent(low)} to ${percent(high)})`;
}
