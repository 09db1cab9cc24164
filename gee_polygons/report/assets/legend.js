// The colours of the map, and its legend.

import { CHANGE_COLORS, displayName, GROUP_COLORS, NO_EVIDENCE_COLOR, NO_VALUE_COLOR, viridis } from './colors.js';
import { hasRecovery, report, siteById, sites } from './data.js';
import { byId, element } from './elements.js';
import { isKnown, percent, t } from './text.js';

let colorBy = hasRecovery ? 'group' : 'change';

function siteColor(site) {
  if (colorBy === 'pca') return site.pca_rgb || NO_VALUE_COLOR;
  if (colorBy === 'change') return CHANGE_COLORS[site.change] || NO_VALUE_COLOR;
  if (colorBy === 'group') return GROUP_COLORS[site.group] || NO_VALUE_COLOR;
  if (isKnown(site.share)) return viridis(site.share);
  return site.group ? NO_EVIDENCE_COLOR : NO_VALUE_COLOR;
}

function onMap(key, value) {
  return sites.some((site) => site.path && site[key] === value);
}

function legendItem(text, color, role = '') {
  return element('span', {}, element('span', { class: `swatch ${role}`, style: `background:${color}` }), text);
}

function legendOfValues(key, colors) {
  const present = Object.entries(colors).filter(([value]) => onMap(key, value));
  return present.map(([value, color]) => legendItem(displayName(value), color));
}

function legendOfShares() {
  const gradient = [0, 0.25, 0.5, 0.75, 1].map(viridis);
  const ramp = element('span', { class: 'ramp', style: `background:linear-gradient(90deg,${gradient})` });
  const without = sites.some((site) => site.path && site.group && !isKnown(site.share));
  return ['0%', ramp, t('100% recovered'), ...(without ? [legendItem(t('no share'), NO_EVIDENCE_COLOR)] : [])];
}

function legend() {
  if (colorBy === 'pca') {
    const text = 'Similar colours: similar land, in the last year with data ({part} of the variance).';
    return [element('span', {}, t(text, { part: percent(report.pca) }))];
  }
  if (colorBy === 'change') return legendOfValues('change', CHANGE_COLORS);
  if (colorBy === 'group') return legendOfValues('group', GROUP_COLORS);
  return legendOfShares();
}

export function colorMap() {
  for (const path of document.querySelectorAll('#map path[data-id]')) {
    path.setAttribute('fill', siteColor(siteById.get(path.dataset.id)));
  }
  const roles = ['reference', 'control'].filter((role) => onMap('role', role));
  byId('legend').replaceChildren(
    ...legend(),
    ...roles.map((role) => legendItem(t(`${role} site`), NO_VALUE_COLOR, role)),
  );
  const byRecovery = colorBy === 'group' || colorBy === 'share';
  if (byRecovery && onMap('role', 'other')) byId('legend').append(legendItem(t('other site'), NO_VALUE_COLOR));
}

export function prepareLegend() {
  byId('colour').value = colorBy;
  byId('colour').addEventListener('change', (event) => {
    colorBy = event.target.value;
    colorMap();
  });
}
