// Texts in the page's language, and numbers as text. A missing number is an en dash.

import { report } from './data.js';

const MISSING = '\u2013';

// A text in the page's language, with the figures in its {places}.
export function t(text, figures = {}) {
  return (report.words[text] || text).replace(/\{(\w+)\}/g, (_, key) => figures[key]);
}

export function isKnown(value) {
  return value !== null && value !== undefined;
}

export function orDash(value) {
  return isKnown(value) ? value : MISSING;
}

export function decimals(value, digits) {
  if (!isKnown(value)) return MISSING;
  return value.toLocaleString(report.language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function percent(fraction) {
  return isKnown(fraction) ? `${Math.round(100 * fraction)}%` : MISSING;
}

export function signedPercent(fraction) {
  const sign = fraction >= 0 ? '+' : '\u2212';
  return `${sign}${decimals(Math.abs(100 * fraction), 1)}%`;
}

export function thousands(number) {
  return decimals(number, 0);
}

// "1 site", "2 sites"
export function count(number, noun) {
  return `${thousands(number)} ${t(number === 1 ? noun : `${noun}s`)}`;
}

export function hectares(area) {
  if (!isKnown(area)) return MISSING;
  return area < 0.1 ? `<${decimals(0.1, 1)}` : decimals(area, 1);
}

// A false-discovery rate: small rates keep a decimal.
export function rateText(q) {
  if (!isKnown(q)) return MISSING;
  if (q < 0.001) return `<${decimals(0.1, 1)}%`;
  return `${decimals(100 * q, q < 0.1 ? 1 : 0)}%`;
}

// Intervals are cut to 0..1. One that is cut at both ends would look like certainty, so it is given as a bound.
export function boundText(low, high) {
  if (low >= 0.995 && high >= 0.995) return t('99% or more');
  if (low <= 0.005 && high <= 0.005) return t('1% or less');
  return '';
}

export function shareText(share, low, high) {
  if (!isKnown(share)) return t('no share');
  if (!isKnown(low)) return percent(share);
  const interval = t('{share} ({low} to {high})', { share: percent(share), low: percent(low), high: percent(high) });
  return boundText(low, high) || interval;
}

// The similarity to the references, and what it was at the start; empty where it isn't known.
export function similarityText(site) {
  if (!isKnown(site.similarity)) return '';
  const figures = { now: decimals(site.similarity, 2), start: decimals(site.similarity_start, 2) };
  if (!isKnown(site.similarity_start)) return t('similarity to the references {now}', figures);
  return t('similarity to the references {now} (at its start {start})', figures);
}
