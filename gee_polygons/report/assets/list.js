// The list of sites: sorting, filtering, and a hundred rows at a time.

import { displayName, ORDERS } from './colors.js';
import { columns } from './columns.js';
import { hasRecovery, report, sites } from './data.js';
import { openSite } from './dialog.js';
import { byId, element } from './elements.js';
import { count, isKnown, t, thousands } from './text.js';

const PAGE_ROWS = 100;
const FILTERS = ['role', 'group', 'change']; // keys in the data, and ids of the menus
const collator = new Intl.Collator(report.language, { numeric: true });
let sortKey = hasRecovery ? 'group' : 'change';
let descending = false;
let rowLimit = PAGE_ROWS;

function sortValue(site, key) {
  if (!ORDERS[key] || !isKnown(site[key])) return site[key];
  return ORDERS[key].indexOf(site[key]);
}

// Compare two sites by one column. Missing values come last, whether ascending or descending.
export function compareSites(a, b, key, fromLargest = false) {
  const left = sortValue(a, key);
  const right = sortValue(b, key);
  if (!isKnown(left) || !isKnown(right)) return Number(isKnown(right)) - Number(isKnown(left));
  const order = typeof left === 'number' ? left - right : collator.compare(left, right);
  return fromLargest ? -order : order;
}

// Text without case and accents: "sao" finds "São".
function plainText(text) {
  return text.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase();
}

function searchText() {
  return byId('find').value.trim();
}

export function matchingSites() {
  const wanted = plainText(searchText());
  const matching = sites.filter(
    (site) =>
      [site.id, site.name || '', site.place || ''].some((name) => plainText(name).includes(wanted)) &&
      FILTERS.every((key) => !byId(key).value || site[key] === byId(key).value),
  );
  return matching.sort(
    (a, b) =>
      compareSites(a, b, sortKey, descending) ||
      compareSites(a, b, 'role') ||
      compareSites(a, b, 'share') ||
      compareSites(a, b, 'id'),
  );
}

// The filters in use, for paper.
function filterText() {
  const used = FILTERS.filter((key) => byId(key).value).map((key) => displayName(byId(key).value));
  if (searchText()) used.unshift(t('name with \u201c{text}\u201d', { text: searchText() }));
  return used.join(', ');
}

function siteRow(site) {
  const row = element('tr', { 'data-id': site.id });
  for (const { key, style, cell } of columns) {
    const content = [cell(site)].flat();
    if (key === 'id') {
      const open = { type: 'button', title: site.name || site.id, onclick: () => openSite(site) };
      content[0] = element('button', open, site.id);
      if (report.hasRoles) content.push(' ', element('small', { class: `role ${site.role}` }, t(site.role)));
    }
    row.append(element('td', { class: style }, ...content));
  }
  return row;
}

function showCounts(matching, shown) {
  const all = matching === sites.length;
  const left = matching - shown;
  const total = count(sites.length, 'site');
  const some = t('{n} of {sites}', { n: thousands(matching), sites: total });
  byId('count').textContent = !matching ? t('no site matches') : all ? total : some;
  byId('more').hidden = !left;
  const more = { n: Math.min(PAGE_ROWS, left), left: thousands(left) };
  byId('more').textContent = t('Show {n} more ({left} not shown)', more);
  const part = t(left ? 'The first {n} of {sites}' : '{n} of {sites}', {
    n: thousands(shown),
    sites: count(matching, 'site'),
  });
  const filters = { all: thousands(sites.length), filters: filterText() };
  const filtered = all ? '' : ` ${t('that match (of {all}); only: {filters}', filters)}`;
  byId('printed').textContent = `${part}${filtered}.`;
}

function showSortOrder() {
  for (const heading of byId('rows').querySelectorAll('th')) {
    const sorted = heading.dataset.key === sortKey;
    heading.setAttribute('aria-sort', !sorted ? 'none' : descending ? 'descending' : 'ascending');
    heading.querySelector('span').textContent = !sorted ? '' : descending ? ' ▾' : ' ▴';
  }
}

export function showList() {
  const matching = matchingSites();
  const shown = matching.slice(0, rowLimit);
  const body = element('tbody', {}, ...shown.map(siteRow));
  if (!matching.length) {
    body.append(element('tr', {}, element('td', { colspan: columns.length, class: 'none' }, t('No site matches.'))));
  }
  byId('rows').tBodies[0].replaceWith(body);
  showCounts(matching.length, shown.length);
  showSortOrder();
  const matchingIds = new Set(matching.map((site) => site.id));
  for (const path of document.querySelectorAll('#map path[data-id]')) {
    path.style.opacity = matchingIds.has(path.dataset.id) ? 1 : 0.12;
  }
}

export function restartList() {
  rowLimit = PAGE_ROWS;
  showList();
}

function sortBy(key) {
  descending = sortKey === key && !descending;
  sortKey = key;
  restartList();
}

function prepareFilter(key) {
  const menu = byId(key);
  const present = new Set(sites.map((site) => site[key]));
  const choices = ORDERS[key].filter((value) => present.has(value));
  menu.append(...choices.map((value) => element('option', { value }, displayName(value))));
  menu.hidden = !choices.length || (key === 'role' && !report.hasRoles);
  menu.addEventListener('change', restartList);
}

export function prepareList() {
  const headings = columns.map(({ key, name, style, title }) => {
    const arrow = element('span', { 'aria-hidden': 'true' });
    const button = element('button', { type: 'button', title, onclick: () => sortBy(key) }, name, arrow);
    return element('th', { class: style, scope: 'col', 'data-key': key }, button);
  });
  byId('rows').tHead.append(element('tr', {}, ...headings));
  FILTERS.forEach(prepareFilter);
  byId('find').addEventListener('input', restartList);
  byId('more').addEventListener('click', () => {
    rowLimit += PAGE_ROWS;
    showList();
  });
  byId('expert').addEventListener('change', (event) => byId('rows').classList.toggle('all', event.target.checked));
}
