// The sheet of one site: what is known, what to be careful about, pictures, charts and the yearly figures.

import { changeChart, shareChart } from './charts.js';
import { GROUP_COLORS, label } from './colors.js';
import { report } from './data.js';
import { byId, element } from './elements.js';
import { similarityMatrix } from './matrix.js';
import { count, decimals, hectares, isKnown, percent, rateText, shareText, signedPercent, thousands } from './text.js';

const FEW_PIXELS = 50;
const LOW_HOMOGENEITY = 0.8;
const LOW_VALID_FRACTION = 0.8;
const FAR_OFF_TRAJECTORY_DEG = 30;
const CHANGE_ENDINGS = {
  persistent: ', and has stayed changed',
  returned: ', and came back',
  'last year only': ': only the last year shows it, so it may be one bad year',
};

function paragraph(text, className = '') {
  return element('p', { class: className }, text);
}

function recoveryText(site) {
  if (!isKnown(site.share)) return `${site.evidence}.`;
  const share = `${shareText(site.share, site.share_low, site.share_high)} recovered in ${site.year}`;
  const interval = `${signedPercent(site.rate_low)} to ${signedPercent(site.rate_high)}`;
  const rate = isKnown(site.rate) ? `, ${signedPercent(site.rate)} a year (${interval})` : '';
  return `${share}${rate}${site.evidence ? `; ${site.evidence}` : ''}.`;
}

function changeText(site) {
  if (site.change === 'none') return 'No change beyond the background and noise.';
  if (site.change === 'no data') return 'Too few years with data to test for a change.';
  const ending = CHANGE_ENDINGS[site.change] || '';
  return (
    `Changed since ${site.change_start}${ending} ` +
    `(by ${decimals(site.size_deg, 0)}°; false-discovery rate ${rateText(site.q)}).`
  );
}

function timingTexts(site) {
  const texts = [];
  if (isKnown(site.years_to_80)) texts.push(`Reached 80% ${decimals(site.years_to_80, 1)} years after the start.`);
  else if (isKnown(site.expected_years_to_80)) {
    const years = decimals(site.expected_years_to_80, 0);
    texts.push(`At the present rate it would reach 80% about ${years} years after the start.`);
  }
  if (isKnown(site.years_to_range)) {
    texts.push(`Reached the reference range ${decimals(site.years_to_range, 1)} years after the start.`);
  }
  return texts;
}

function facts(site) {
  const known = [];
  if (report.hasRoles) known.push(`${site.role} site`);
  if (isKnown(site.start_year)) known.push(`start ${site.start_year}`);
  if (isKnown(site.area_ha)) known.push(`${hectares(site.area_ha)} ha`);
  if (isKnown(site.rank)) known.push(`rank ${thousands(site.rank)} of ${thousands(report.ranked)} by share`);
  if (isKnown(site.effective_pixels)) {
    const pixels = decimals(site.effective_pixels, 1);
    known.push(`effective sample size ${pixels} ${pixels === '1.0' ? 'pixel' : 'pixels'}`);
  }
  return known.join(' · ');
}

function findings(site) {
  const paragraphs = [];
  if (site.group) {
    paragraphs.push(element('p', {}, label(site.group, GROUP_COLORS[site.group]), ' ', recoveryText(site)));
  }
  const direction = site.direction ? [`Direction of change: ${site.direction}`] : [];
  for (const text of [changeText(site), ...timingTexts(site), ...direction]) paragraphs.push(paragraph(text));
  const known = facts(site);
  if (known) paragraphs.push(paragraph(known, 'soft'));
  return paragraphs;
}

// Reasons to be careful with this site's numbers.
function cautions(site) {
  const texts = [];
  if (isKnown(site.off_way_deg) && site.off_way_deg >= FAR_OFF_TRAJECTORY_DEG) {
    texts.push(
      `Off the recovery trajectory by ${decimals(site.off_way_deg, 0)}°: it may be becoming something else ` +
        'than the references, and the share of recovery then means little.',
    );
  }
  if (isKnown(site.n_pixels) && site.n_pixels < FEW_PIXELS) {
    const pixels = count(Math.max(1, Math.round(site.n_pixels)), 'pixel');
    texts.push(`Small: about ${pixels} of 10 m, which largely show the surroundings.`);
  }
  if (isKnown(site.Rbar) && site.Rbar < LOW_HOMOGENEITY) {
    texts.push(
      `Mixed: homogeneity (Rbar) is ${decimals(site.Rbar, 2)}, so the mean describes no part of the site well.`,
    );
  }
  if (isKnown(site.valid_fraction) && site.valid_fraction < LOW_VALID_FRACTION) {
    texts.push(`Only ${percent(site.valid_fraction)} of the area has data in a typical year.`);
  }
  return texts.map((text) => paragraph(text, 'note'));
}

function yearlyTable(site) {
  const series = site.series;
  const withShare = series.share.some(isKnown) || series.similarity.some(isKnown);
  const shareNames = withShare ? ['Share', 'Similarity to references'] : [];
  const names = ['Year', 'Data', ...shareNames, 'Homo\u00adgeneity', 'Valid area', 'z\u2011score'];
  const row = (tag, cells, properties) =>
    element(
      'tr',
      {},
      ...cells.map((cell, i) => element(tag, { class: i === 1 ? '' : 'n', ...properties }, String(cell))),
    );
  const body = report.years.map((year, i) => {
    const hasData = isKnown(series.Rbar[i]);
    const status = series.status[i] || (hasData ? 'ok' : 'no data');
    const shares = withShare ? [percent(series.share[i]), decimals(series.similarity[i], 2)] : [];
    const valid = percent(hasData ? series.valid_fraction[i] : null);
    return row('td', [year, status, ...shares, decimals(series.Rbar[i], 3), valid, decimals(series.z[i], 1)], {});
  });
  const table = element(
    'table',
    {},
    element('thead', {}, row('th', names, { scope: 'col' })),
    element('tbody', {}, ...body),
  );
  return element('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Year by year, a table' }, table);
}

function pictures(site) {
  if (!site.strip) return [paragraph('This page was made without pictures of this site.', 'soft')];
  const image = element('img', { src: site.strip, alt: `Pictures of ${site.id}, year by year` });
  const strip = { class: 'strip', tabindex: 0, role: 'group', 'aria-label': 'Pictures, year by year' };
  return [element('h3', {}, 'Pictures'), element('div', strip, image)];
}

export function siteSheet(site) {
  const columns = element('div', { class: 'two' });
  const addPart = (title, content, note) =>
    columns.append(element('div', {}, element('h3', {}, title), content, paragraph(note, 'soft')));
  if (site.series.share.some(isKnown)) {
    const range = isKnown(report.range) ? ' Long dashes: lower end of the reference range.' : '';
    addPart(
      'Share of recovery',
      shareChart(site),
      `Shaded: ${report.confidence}% confidence interval, cut at 0% and 100%.${range} Fine dashes: no data between.`,
    );
  }
  addPart(
    'Change since the first years',
    changeChart(site),
    'Angle between the embeddings. Blue: relative to the background. Grey: as measured.',
  );
  addPart(
    'Similarity between years',
    similarityMatrix(site),
    'Cosine similarity: 1 = the two years look the same; the lower, the more they differ.',
  );
  addPart(
    'Year by year',
    yearlyTable(site),
    'Homogeneity (Rbar): 1 = all pixels alike. Valid area: share of the area with data. z-score: the change in ' +
      'units of the background\u2019s usual scatter; 3 and more is unusual.',
  );
  const limits = paragraph(byId('cant').textContent, 'soft');
  return [...findings(site), ...cautions(site), ...pictures(site), columns, limits];
}
