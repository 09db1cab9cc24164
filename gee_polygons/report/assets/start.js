// Sets up the page once all its parts are there.

import { report } from './data.js';
import { followAddress, prepareDialog } from './dialog.js';
import { byId } from './elements.js';
import { prepareLegend } from './legend.js';
import { prepareList, showList } from './list.js';
import { showMap } from './map.js';
import { prepareVisits } from './visit.js';

prepareDialog();
for (const link of document.querySelectorAll('.to')) {
  link.addEventListener('click', () => byId(link.dataset.to).scrollIntoView());
}
for (const day of document.querySelectorAll('time')) {
  const style = { dateStyle: 'long', timeZone: 'UTC' };
  day.textContent = new Date(day.dateTime).toLocaleDateString(report.language, style);
}
prepareVisits();
prepareLegend();
prepareList();
showMap();
showList();
followAddress();
document.documentElement.dataset.ready = 'yes';
