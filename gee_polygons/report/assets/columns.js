// The columns of the list of sites: key in the data, heading, CSS classes, tooltip, and what a cell shows.

import { CHANGE_COLORS, GROUP_COLORS, label } from './colors.js';
import { hasRecovery, report } from './data.js';
import { element } from './elements.js';
import { boundText, decimals, hectares, isKnown, orDash, percent, rateText, signedPercent } from './text.js';

// A cell's text or element, or a list of them.
export function shareCell(site) {
  if (!isKnown(site.share_low)) return percent(site.share);
  const bound = boundText(site.share_low, site.share_high);
  if (bound) return element('span', { title: bound }, bound === '99% or more' ? '\u226599%' : '\u22641%');
  const interval = `${Math.round(100 * site.share_low)}\u2013${Math.round(100 * site.share_high)}`;
  return [percent(site.share), element('small', { class: 'soft band' }, interval)];
}

const siteColumns = [
  { key: 'id', name: 'Site', style: 'name', title: 'Name of the site', cell: (site) => site.id },
  { key: 'area_ha', name: 'Area, ha', style: 'n wide', title: 'Hectares', cell: (site) => hectares(site.area_ha) },
  {
    key: 'start_year',
    name: 'Start',
    style: 'n wide',
    title: 'Year in which restoration began',
    cell: (site) => orDash(site.start_year),
  },
];

const recoveryColumns = [
  {
    key: 'group',
    name: 'Recovery',
    style: '',
    title: 'Conclusion from the share of recovery and its rate; declining first',
    cell: (site) => (site.group ? label(site.group, GROUP_COLORS[site.group]) : orDash(null)),
  },
  {
    key: 'share',
    name: 'Share',
    style: 'n',
    title: `Share of recovery, with its ${report.confidence}% confidence interval`,
    cell: shareCell,
  },
  {
    key: 'rate',
    name: 'Per year',
    style: 'n wide',
    title: 'Share gained a year since the start',
    cell: (site) => (isKnown(site.rate) ? signedPercent(site.rate) : orDash(null)),
  },
  {
    key: 'years_to_range',
    name: 'Years to range',
    style: 'n more',
    title: 'Years from the start until the site reached the range of the reference sites',
    cell: (site) => decimals(site.years_to_range, 1),
  },
  { key: 'rank', name: 'Rank', style: 'n more', title: '1 = the largest share', cell: (site) => orDash(site.rank) },
];

const changeColumns = [
  {
    key: 'change',
    name: 'Change',
    style: hasRecovery ? 'wide' : '',
    title: 'Whether the site changed more than its background',
    cell: (site) => label(site.change, CHANGE_COLORS[site.change]),
  },
  {
    key: 'change_start',
    name: 'Since',
    style: 'n wide',
    title: 'First year that shows the change',
    cell: (site) => orDash(site.change_start),
  },
  {
    key: 'size_deg',
    name: 'Magni\u00adtude, °',
    style: 'n more',
    title: 'Angle between before and after: 0° = the same, 90° = nothing in common',
    cell: (site) => decimals(site.size_deg, 0),
  },
  {
    key: 'q',
    name: 'False dis\u00adcov\u00aderies',
    style: 'n more',
    title: 'q-value: expected share of false flags among the sites flagged at least as clearly',
    cell: (site) => rateText(site.q),
  },
];

const qualityColumns = [
  {
    key: 'Rbar',
    name: 'Homo\u00adgeneity',
    style: 'n more',
    title: 'Mean resultant length (Rbar): 1 = all pixels alike',
    cell: (site) => decimals(site.Rbar, 2),
  },
  {
    key: 'valid_fraction',
    name: 'Valid area',
    style: 'n more',
    title: 'Share of the area with data',
    cell: (site) => percent(site.valid_fraction),
  },
  {
    key: 'effective_pixels',
    name: 'Effec\u00adtive pixels',
    style: 'n more',
    title: 'Effective sample size: neighbouring pixels are correlated',
    cell: (site) => decimals(site.effective_pixels, 1),
  },
];

export const columns = [...siteColumns, ...(hasRecovery ? recoveryColumns : []), ...changeColumns, ...qualityColumns];
