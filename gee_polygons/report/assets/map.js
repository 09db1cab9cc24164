// The map: outlines of sites, zooming, moving, and a scale bar. The list shows the same to keyboards and screen readers.

import { displayName } from './colors.js';
import { report, sites } from './data.js';
import { openSite } from './dialog.js';
import { byId, svgElement } from './elements.js';
import { showNames } from './labels.js';
import { colorMap } from './legend.js';
import { compareSites } from './list.js';
import { decimals, isKnown, shareText, t } from './text.js';

const MANY_SITES = 300; // thinner outlines beyond
const LARGEST_ZOOM = 64;
const CLICK_PX = 5; // a pointer that moves less than this clicks, it doesn't drag
let view = null; // left, top, width, height
let svg = null;

function tooltip(site) {
  const role = report.hasRoles ? ` (${t(site.role)})` : '';
  const group = site.group ? `: ${displayName(site.group)}` : '';
  const share = isKnown(site.share) ? `, ${shareText(site.share, site.share_low, site.share_high)}` : '';
  const change = site.change === 'none' ? '' : `; ${t('change')}: ${displayName(site.change)}`;
  return `${site.id}${role}${group}${share}${change}`;
}

function outline(site) {
  const path = svgElement('path', { d: site.path, 'fill-rule': 'evenodd', 'data-id': site.id, class: site.role });
  path.append(svgElement('title', {}, tooltip(site)));
  path.addEventListener('click', () => openSite(site));
  return path;
}

// Map coordinates of a pointer.
function pointerPosition(event) {
  return new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
}

// Map units per pixel of the screen.
function unitsPerPixel() {
  const matrix = svg.getScreenCTM();
  return matrix?.a ? 1 / matrix.a : 1;
}

function showView(left, top, width, height) {
  const [boxLeft, boxTop, boxWidth, boxHeight] = report.map.box;
  const within = (value, low, high) => Math.max(low, Math.min(value, high));
  const x = within(left, boxLeft, boxLeft + boxWidth - width);
  const y = within(top, boxTop, boxTop + boxHeight - height);
  view = [x, y, width, height];
  svg.setAttribute('viewBox', view.join(' '));
  const zoomed = width < boxWidth;
  svg.style.touchAction = zoomed ? 'none' : '';
  svg.style.cursor = zoomed ? 'grab' : '';
  byId('out').disabled = !zoomed;
  byId('whole').disabled = !zoomed;
  drawScaleBar();
  showNames(svg.querySelector('g'), view, unitsPerPixel());
}

function zoom(factor, x, y) {
  const [left, top, width, height] = view;
  const widest = report.map.box[2];
  const newWidth = Math.min(widest, Math.max(widest / LARGEST_ZOOM, width * factor));
  const ratio = newWidth / width;
  showView(x - (x - left) * ratio, y - (y - top) * ratio, newWidth, height * ratio);
}

function zoomAtCentre(factor) {
  zoom(factor, view[0] + view[2] / 2, view[1] + view[3] / 2);
}

// The longest of 1, 2, 5, 10, ... metres that takes at most a fifth of the map's width.
function scaleBarMetres() {
  const longest = view[2] / 5 / report.map.metre;
  const power = 10 ** Math.floor(Math.log10(longest));
  return Math.max(...[1, 2, 5].map((digit) => digit * power).filter((metres) => metres <= longest));
}

function drawScaleBar() {
  const unit = unitsPerPixel();
  const metres = scaleBarMetres();
  const length = metres * report.map.metre;
  const left = view[0] + 10 * unit;
  const bottom = view[1] + view[3] - 8 * unit;
  const top = bottom - 7 * unit;
  svg.querySelector('path.scale').setAttribute('d', `M${left} ${top}V${bottom}H${left + length}V${top}`);
  const text = svg.querySelector('text');
  text.setAttribute('x', left + length + 8 * unit);
  text.setAttribute('y', bottom);
  text.style.fontSize = `${13 * unit}px`;
  text.style.strokeWidth = `${3 * unit}px`;
  text.textContent = metres >= 1000 ? `${decimals(metres / 1000, 0)} km` : `${metres} m`;
}

function prepareDragging() {
  let start = null;
  let dragging = false;
  svg.addEventListener('pointerdown', (event) => {
    if (view[2] >= report.map.box[2]) return;
    start = pointerPosition(event);
    dragging = false;
  });
  svg.addEventListener('pointermove', (event) => {
    if (!start) return;
    const now = pointerPosition(event);
    if (!dragging) {
      if (Math.hypot(now.x - start.x, now.y - start.y) < CLICK_PX * unitsPerPixel()) return;
      svg.setPointerCapture(event.pointerId);
      dragging = true;
    }
    showView(view[0] + start.x - now.x, view[1] + start.y - now.y, view[2], view[3]);
  });
  for (const end of ['pointerup', 'pointercancel']) {
    svg.addEventListener(end, () => {
      start = null;
    });
  }
}

function prepareZooming() {
  byId('in').addEventListener('click', () => zoomAtCentre(0.5));
  byId('out').addEventListener('click', () => zoomAtCentre(2));
  byId('whole').addEventListener('click', () => showView(...report.map.box));
  // a plain wheel scrolls the page; a pinch on a touchpad arrives as a wheel with Ctrl
  const pinch = (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const { x, y } = pointerPosition(event);
    zoom(Math.exp(event.deltaY / 200), x, y);
  };
  svg.addEventListener('wheel', pinch, { passive: false });
}

export function showMap() {
  if (!report.map) return;
  const drawn = sites.filter((site) => site.path);
  // references and controls last: their outlines stay on top
  drawn.sort((a, b) => compareSites(a, b, 'role'));
  svg = svgElement('svg', { 'aria-hidden': 'true', class: drawn.length > MANY_SITES ? 'crowd' : '' });
  svg.append(
    ...drawn.map(outline),
    svgElement('path', { class: 'scale' }),
    svgElement('text', { class: 'scale' }),
    svgElement('g', {}),
  );
  byId('map').append(svg);
  showView(...report.map.box);
  colorMap();
  prepareZooming();
  prepareDragging();
  window.addEventListener('resize', () => showView(...view));
}
