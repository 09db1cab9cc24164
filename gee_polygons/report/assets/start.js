// Sets up the page once all its parts are there.

import { followAddress, prepareDialog } from './dialog.js';
import { byId } from './elements.js';
import { prepareLegend } from './legend.js';
import { prepareList, showList } from './list.js';
import { showMap } from './map.js';

prepareDialog();
for (const link of document.querySelectorAll('.to')) {
  link.addEventListener('click', () => byId(link.dataset.to).scrollIntoView());
}
prepareLegend();
prepareList();
showMap();
showList();
followAddress();
document.documentElement.dataset.ready = 'yes';
