// The sites to visit, the largest first: why, where, and what they looked like.

import { CHANGE_COLORS, GROUP_COLORS, label } from './colors.js';
import { hasRecovery, report, siteById } from './data.js';
import { openSite } from './dialog.js';
import { byId, element } from './elements.js';
import { beforeAfter } from './pictures.js';
import { placeLinks } from './places.js';
import { count, hectares, isKnown, shareText, similarityText, t } from './text.js';

const FIRST_SITES = 20;
const PRINTED_SITES = 200;

function reasons(site) {
  const texts = [similarityText(site)].filter(Boolean);
  const share = shareText(site.share, site.share_low, site.share_high);
  if (isKnown(site.share)) texts.unshift(t('{share} recovered in {year}', { share, year: site.year }));
  if (isKnown(site.change_start)) texts.push(t('changed since {year}', { year: site.change_start }));
  return texts.join(' \u00b7 ');
}

function item(site) {
  const verdict = hasRecovery
    ? label(site.group, GROUP_COLORS[site.group])
    : label(site.change, CHANGE_COLORS[site.change]);
  const open = element('button', { type: 'button', class: 'to', onclick: () => openSite(site) }, site.id);
  const names = [site.name, site.place].filter((name) => name && name !== site.id).join(', ');
  const lines = [reasons(site), placeLinks(site)].map((line) => element('div', { class: 'soft' }, ...[line].flat()));
  const head = element('div', {}, open, ' ', verdict, ` ${hectares(site.area_ha)} ha`);
  if (names) lines.unshift(element('div', {}, names));
  return element('li', {}, ...beforeAfter(site), head, ...lines);
}

function showVisits(limit) {
  const sites = report.visit.slice(0, limit).map((id) => siteById.get(id));
  byId('visit').replaceChildren(...sites.map(item));
  byId('all-visits').hidden = sites.length === report.visit.length;
}

export function prepareVisits() {
  byId('visits').hidden = !report.visit.length;
  const why = hasRecovery
    ? '{sites}: declining or stalled, the largest first.'
    : '{sites}: changed, the largest first.';
  byId('why').textContent = t(why, { sites: count(report.toVisit, 'site') });
  byId('all-visits').textContent = t('Show more');
  byId('all-visits').addEventListener('click', () => showVisits(byId('visit').children.length + 10 * FIRST_SITES));
  window.addEventListener('beforeprint', () => showVisits(Math.max(PRINTED_SITES, byId('visit').children.length)));
  showVisits(FIRST_SITES);
}
