// The sheet of one site: what is known, what to be careful about, pictures, charts and the yearly figures.

import { changeChart, shareChart } from './charts.js';
import { GROUP_COLORS, label } from './colors.js';
import { report } from './data.js';
import { byId, element } from './elements.js';
import { similarityMatrix } from './matrix.js';
import { beforeAfter, pictureOf } from './pictures.js';
import { placeLinks } from './places.js';
import {
  count,
  decimals,
  hectares,
  isKnown,
  percent,
  rateText,
  shareText,
  signedPercent,
  similarityText,
  t,
  thousands,
} from './text.js';

const FEW_PIXELS = 50;
const LOW_HOMOGENEITY = 0.8;
const LOW_VALID_FRACTION = 0.8;
const FAR_OFF_TRAJECTORY_DEG = 20;
const CHANGE_ENDINGS = { // after "Changed since 2021"
  persistent: ', and has stayed changed',
  returned: ', and came back',
  'last year only': ': only the last year shows it, so it may be one bad year',
};

function paragraph(text, className = '') {
  return element('p', { class: className }, text);
}

const GROUP_REASONS = {
  declining: 'It moves away from the references, or lost what it had gained.',
  stalled: 'It gains too little to reach the references within 25 years.',
  'no evidence': 'The data allow more than one conclusion.',
  recovering: 'It approaches the references.',
  'at reference': 'It started as near the references as they are to each other, and stayed.',
};
const STATUS_REASONS = {
  no_baseline: 'No data from before the start, so no share.',
  no_data: 'No data.',
  not_started: 'The start lies after the last year with data.',
};

function recoveryText(site) {
  const texts = [t(STATUS_REASONS[site.status] || GROUP_REASONS[site.group])];
  if (isKnown(site.share)) {
    const share = shareText(site.share, site.share_low, site.share_high);
    texts.push(`${t('{share} recovered in {year}', { share, year: site.year })}.`);
  }
  if (isKnown(site.rate)) {
    const [rate, low, high] = [site.rate, site.rate_low, site.rate_high].map(signedPercent);
    texts.push(t('{rate} a year ({low} to {high}).', { rate, low, high }));
  }
  const similarity = similarityText(site);
  if (similarity) texts.push(`${similarity[0].toUpperCase()}${similarity.slice(1)}.`);
  return texts.join(' ');
}

function changeText(site) {
  if (site.change === 'none') return t('No lasting change beyond the background and noise.');
  if (site.change === 'no data') return t('Too few years with data to test for a change.');
  const year = t('Changed since {year}{ending}.', { year: site.change_start, ending: t(CHANGE_ENDINGS[site.change]) });
  if (!isKnown(site.size_deg)) return year;
  const figures = { angle: decimals(site.size_deg, 0), year: site.size_year, rate: rateText(site.q) };
  return `${year} ${t('Angle to its first year: {angle}° in {year}; false-discovery rate {rate}.', figures)}`;
}

function timingTexts(site) {
  const texts = [];
  const add = (text, years, digits) => texts.push(t(text, { years: decimals(years, digits) }));
  if (isKnown(site.years_to_80)) add('Reached 80% {years} years after the start.', site.years_to_80, 1);
  else if (isKnown(site.expected_years_to_80)) {
    add('At the present rate it would reach 80% about {years} years after the start.', site.expected_years_to_80, 0);
  }
  if (isKnown(site.years_to_range)) {
    add('Reached the reference range {years} years after the start.', site.years_to_range, 1);
  }
  return texts;
}

function facts(site) {
  const known = [];
  if (report.hasRoles) known.push(t(`${site.role} site`));
  if (isKnown(site.start_year)) known.push(`${t('start')} ${site.start_year}`);
  if (isKnown(site.area_ha)) known.push(`${hectares(site.area_ha)} ha`);
  if (isKnown(site.rank)) {
    known.push(t('rank {n} of {all} by share', { n: thousands(site.rank), all: thousands(report.ranked) }));
  }
  if (isKnown(site.effective_pixels)) {
    known.push(t('effective sample size {n} pixels', { n: decimals(site.effective_pixels, 1) }));
  }
  return [known.join(' · '), ...placeLinks(site)];
}

function findings(site) {
  const paragraphs = [];
  if (site.group) {
    paragraphs.push(element('p', {}, label(site.group, GROUP_COLORS[site.group]), ' ', recoveryText(site)));
  }
  const direction = site.direction ? [t('Direction of change: {parts}', { parts: site.direction })] : [];
  const event = isKnown(site.event_year)
    ? [t('{year} was unlike the years around it.', { year: site.event_year })]
    : [];
  const texts = [changeText(site), ...event, ...timingTexts(site), ...direction];
  paragraphs.push(...texts.map((text) => paragraph(text)));
  const [known, ...links] = facts(site);
  const where = site.place ? [`${site.place}: `] : [];
  if (known) paragraphs.push(paragraph(known, 'soft'));
  if (links.length) paragraphs.push(element('p', {}, ...where, ...links));
  return paragraphs;
}

// Reasons to be careful with this site's numbers.
function cautions(site) {
  const texts = [];
  if (site.elsewhere) {
    texts.push(t('Alike sites elsewhere changed in the same way: it may be the weather, or the data.'));
  }
  if (isKnown(site.off_way_deg) && site.off_way_deg >= FAR_OFF_TRAJECTORY_DEG) {
    texts.push(
      t(
        'Off the recovery trajectory by {angle}°: it may be becoming something else than the references, and the ' +
          'share of recovery then means little.',
        { angle: decimals(site.off_way_deg, 0) },
      ),
    );
  }
  if (isKnown(site.n_pixels) && site.n_pixels < FEW_PIXELS) {
    const pixels = count(Math.max(1, Math.round(site.n_pixels)), 'pixel');
    texts.push(t('Small: about {pixels} of 10 m, which largely show the surroundings.', { pixels }));
  }
  if (isKnown(site.Rbar) && site.Rbar < LOW_HOMOGENEITY) {
    const figures = { value: decimals(site.Rbar, 2) };
    texts.push(t('Mixed: homogeneity (Rbar) is {value}, so the mean describes no part of the site well.', figures));
  }
  if (isKnown(site.valid_fraction) && site.valid_fraction < LOW_VALID_FRACTION) {
    const part = percent(site.valid_fraction);
    texts.push(t('Only {part} of the area has data in a typical year.', { part }));
  }
  return texts.map((text) => paragraph(text, 'note'));
}

function yearlyTable(site) {
  const { Rbar = [], valid_fraction = [], z = [], status = [], share = [], similarity = [] } = site.series;
  const withShare = share.some(isKnown) || similarity.some(isKnown);
  const shareNames = withShare ? [t('Share'), t('Similarity to references')] : [];
  const names = [t('Year'), t('Data'), ...shareNames, t('Homo\u00adgeneity'), t('Valid area'), t('z\u2011score')];
  const row = (tag, cells, properties) =>
    element(
      'tr',
      {},
      ...cells.map((cell, i) => element(tag, { class: i === 1 ? '' : 'n', ...properties }, String(cell))),
    );
  const body = report.years.map((year, i) => {
    const hasData = isKnown(Rbar[i]);
    const state = t(status[i] || (hasData ? 'ok' : 'no data'));
    const shares = withShare ? [percent(share[i]), decimals(similarity[i], 2)] : [];
    const valid = percent(hasData ? valid_fraction[i] : null);
    return row('td', [year, state, ...shares, decimals(Rbar[i], 3), valid, decimals(z[i], 1)], {});
  });
  const table = element(
    'table',
    {},
    element('thead', {}, row('th', names, { scope: 'col' })),
    element('tbody', {}, ...body),
  );
  return element(
    'div',
    { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': t('Year by year, a table') },
    table,
  );
}

function whyNoPictures(site) {
  if (site.noPictures) return t('No pictures: {why}', { why: site.noPictures });
  if (site.pictures) return t('No pictures: the source has no data here.');
  if (!report.hasSource) return t('No pictures: no source was given to read them from (option source).');
  return t('No pictures: they were made of other sites (option pictures).');
}

function pictures(site) {
  const pair = beforeAfter(site);
  if (!pair.length) return [paragraph(whyNoPictures(site), 'soft')];
  const images = site.pictures.map((frame) => pictureOf(site, frame, String(frame.year)));
  const strip = { class: 'strip', tabindex: 0, role: 'group', 'aria-label': t('Pictures, year by year') };
  const colors = 'Colours: principal components of the embeddings; similar colours are similar land.';
  return [...pair, element('div', strip, ...images), paragraph(t(colors), 'soft')];
}

export function siteSheet(site) {
  const columns = element('div', { class: 'two' });
  const addPart = (title, content, note) =>
    columns.append(element('div', {}, element('h3', {}, title), content, paragraph(note, 'soft')));
  if (site.series.share) {
    const range = isKnown(report.range) ? ` ${t('Long dashes: lower end of the reference range.')}` : '';
    const note = t('Shaded: {n}% confidence interval, cut at 0% and 100%.', { n: report.confidence });
    addPart(t('Share of recovery'), shareChart(site), `${note}${range} ${t('Fine dashes: no data between.')}`);
  }
  addPart(
    t('Change since the first year'),
    changeChart(site),
    t('Angle to the first year. Dark: relative to the background. Light: as measured.'),
  );
  addPart(
    t('Similarity between years'),
    similarityMatrix(site),
    t('Cosine similarity: 1 = the two years look the same; the lower, the more they differ.'),
  );
  addPart(
    t('Year by year'),
    yearlyTable(site),
    t(
      'Homogeneity (Rbar): 1 = all pixels alike. Valid area: share of the area with data. z-score: how unlike the ' +
        'years around it a year is, compared with all sites; 3 and more is unusual.',
    ),
  );
  const limits = paragraph(byId('cant').textContent, 'soft');
  return [...pictures(site), ...findings(site), ...cautions(site), columns, limits];
}
