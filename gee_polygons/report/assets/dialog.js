// Opening and closing the sheet of a site. The address names the open site, so Back, Forward and links work.

import { siteById } from './data.js';
import { byId, element } from './elements.js';
import { siteSheet } from './site.js';
import { t } from './text.js';

let closedByNavigation = false; // the dialog's close event comes late: Forward may have opened it again by then

function showSite(site) {
  const title = site.id + (site.name && site.name !== site.id ? ` · ${site.name}` : '');
  byId('title').textContent = title;
  byId('title').title = title;
  const origin = [...byId('from').children].map((child) => child.cloneNode(true));
  const footer = element('div', { class: 'soft from' }, element('h3', {}, t('Where this comes from')), ...origin);
  byId('body').replaceChildren(...siteSheet(site), footer);
  // on paper the dialog is left out: this copy replaces the list, between the page's heading and its provenance
  byId('sheet').replaceChildren(element('h2', {}, title), ...siteSheet(site));
  document.documentElement.dataset.sheet = 'yes';
  const dialog = byId('site');
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

export function openSite(site) {
  history.pushState({ site: true }, '', `#${encodeURIComponent(site.id)}`);
  showSite(site);
}

function siteInAddress() {
  const typed = location.hash.slice(1);
  try {
    return siteById.get(decodeURIComponent(typed)) || siteById.get(typed);
  } catch {
    return siteById.get(typed); // "#100%" typed by hand isn't a valid encoding, but is a name all the same
  }
}

export function followAddress() {
  const site = siteInAddress();
  if (site) showSite(site);
  else if (byId('site').open) {
    closedByNavigation = true;
    byId('site').close();
  }
}

function whenClosed() {
  const byUser = !closedByNavigation;
  closedByNavigation = false;
  if (byId('site').open) return;
  delete document.documentElement.dataset.sheet;
  if (!byUser || !siteInAddress()) return;
  if (history.state?.site) history.back();
  else history.replaceState(null, '', location.pathname + location.search);
}

export function prepareDialog() {
  const dialog = byId('site');
  byId('close').addEventListener('click', () => dialog.close());
  dialog.addEventListener('close', whenClosed);
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
  window.addEventListener('popstate', followAddress);
  window.addEventListener('hashchange', followAddress);
}
