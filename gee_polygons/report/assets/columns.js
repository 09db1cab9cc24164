// The columns of the list of sites: key in the data, heading, CSS classes, tooltip, and what a cell shows.

import { CHANGE_COLORS, GROUP_COLORS, label } from './colors.js';
import { hasRecovery, report } from './data.js';
import { element } from './elements.js';
import { boundText, decimals, hectares, isKnown, orDash, percent, rateText, signedPercent, t } from './text.js';

// A cell's text or element, or a list of them.
export function shareCell(site) {
  if (!isKnown(site.share_low)) return percent(site.share);
  const bound = boundText(site.share_low, site.share_high);
  if (bound) return element('span', { title: bound }, site.share_low > 0.5 ? '\u226599%' : '\u22641%');
  const interval = `${Math.round(100 * site.share_low)}\u2013${Math.round(100 * site.share_high)}`;
  return [percent(site.share), element('small', { class: 'soft band' }, interval)];
}

function similarityCell(site) {
  if (!isKnown(site.similarity) || !isKnown(site.similarity_start)) return decimals(site.similarity, 2);
  const start = t('start {value}', { value: decimals(site.similarity_start, 2) });
  return [decimals(site.similarity, 2), element('small', { class: 'soft band' }, start)];
}

const siteColumns = [
  { key: 'id', name: t('Site'), style: 'name', title: t('Name of the site'), cell: (site) => site.id },
  {
    key: 'area_ha',
    name: t('Hectares'),
    style: 'n wide',
    title: t('Area in hectares'),
    cell: (site) => hectares(site.area_ha),
  },
  {
    key: 'start_year',
    name: t('Start'),
    style: 'n wide',
    title: t('Year in which restoration began'),
    cell: (site) => orDash(site.start_year),
  },
];

const recoveryColumns = [
  {
    key: 'group',
    name: t('Recovery'),
    style: '',
    title: t('Conclusion from the share of recovery and its rate; declining first'),
    cell: (site) => (site.group ? label(site.group, GROUP_COLORS[site.group]) : orDash(null)),
  },
  {
    key: 'share',
    name: t('Share'),
    style: 'n',
    title: t('Share of recovery, with its {n}% confidence interval', { n: report.confidence }),
    cell: shareCell,
  },
  {
    key: 'similarity',
    name: t('Simi\u00adlarity'),
    style: 'n',
    title: t('Similarity to the reference sites now (cosine, 1 = the same), and at the start'),
    cell: similarityCell,
  },
  {
    key: 'rate',
    name: t('Per year'),
    style: 'n wide',
    title: t('Share gained a year since the start'),
    cell: (site) => (isKnown(site.rate) ? signedPercent(site.rate) : orDash(null)),
  },
  {
    key: 'years_to_range',
    name: t('Years to range'),
    style: 'n more',
    title: t('Years from the start until the site reached the range of the reference sites'),
    cell: (site) => decimals(site.years_to_range, 1),
  },
  {
    key: 'rank',
    name: t('Rank'),
    style: 'n more',
    title: t('1 = the largest share'),
    cell: (site) => orDash(site.rank),
  },
];

const changeColumns = [
  {
    key: 'change',
    name: t('Change'),
    style: hasRecovery ? 'wide' : '',
    title: t('Whether the site changed more than its background'),
    cell: (site) => label(site.change, CHANGE_COLORS[site.change]),
  },
  {
    key: 'change_start',
    name: t('Since'),
    style: 'n wide',
    title: t('First year that shows the change'),
    cell: (site) => orDash(site.change_start),
  },
  {
    key: 'size_deg',
    name: t('Magni\u00adtude, °'),
    style: 'n more',
    title: t("Angle to the site's first year, as in its chart: 0° = the same, 90° = nothing in common"),
    cell: (site) => decimals(site.size_deg, 0),
  },
  {
    key: 'q',
    name: t('False dis\u00adcov\u00aderies'),
    style: 'n more',
    title: t('q-value: expected share of false flags among the sites flagged at least as clearly'),
    cell: (site) => rateText(site.q),
  },
];

const qualityColumns = [
  {
    key: 'Rbar',
    name: t('Homo\u00adgeneity'),
    style: 'n more',
    title: t('Mean resultant length (Rbar): 1 = all pixels alike'),
    cell: (site) => decimals(site.Rbar, 2),
  },
  {
    key: 'valid_fraction',
    name: t('Valid area'),
    style: 'n more',
    title: t('Share of the area with data'),
    cell: (site) => percent(site.valid_fraction),
  },
  {
    key: 'effective_pixels',
    name: t('Effec\u00adtive pixels'),
    style: 'n more',
    title: t('Effective sample size: neighbouring pixels are correlated'),
    cell: (site) => decimals(site.effective_pixels, 1),
  },
];

export const columns = [...siteColumns, ...(hasRecovery ? recoveryColumns : []), ...changeColumns, ...qualityColumns];
