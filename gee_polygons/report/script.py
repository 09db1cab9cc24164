"""Script of the report: plain JavaScript, no library, no network; all text goes in as text, never as markup."""

from typing import Final

from gee_polygons.report import script_base, script_charts, script_list, script_map, script_site

_START: Final = r"""
$('close').addEventListener('click',()=>$('site').close());
$('site').addEventListener('close',leave);
$('site').addEventListener('click',e=>{if(e.target===$('site'))$('site').close();});
window.addEventListener('popstate',route);window.addEventListener('hashchange',route);
for(const b of document.querySelectorAll('.to'))b.addEventListener('click',()=>$(b.dataset.to).scrollIntoView());
$('colour').value=colour;$('colour').addEventListener('change',e=>{colour=e.target.value;paint();});
head();map();list();route();
document.documentElement.dataset.ready='yes';
"""
JS: Final = script_base.JS + script_list.JS + script_map.JS + script_charts.JS + script_site.JS + _START
