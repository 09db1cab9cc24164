"""Script of the report, the list of sites: columns, sorting, filters, a hundred rows at a time."""

from typing import Final

JS: Final = r"""
const PAGE=100;
const COLS=[['id','Site','name',null,'Name of the site'],['area','Area, ha','n wide',s=>area(s.area),'Hectares'],
 ['begun','Start','n wide',s=>ok(s.begun)?s.begun:'\u2013','Year in which restoration began'],
 ...(REC?[['group','Recovery','',s=>s.group?tag(s.group,GROUP[s.group]):'\u2013',
   'What the share and its rate allow to be said; declining first'],
  ['share','Share','n',shareCell,'Share of the way to the reference sites, with its '+D.confidence+'% band'],
  ['rate','Per year','n wide',s=>ok(s.rate)?signed(s.rate):'\u2013','Share gained a year since the start'],
  ['toRange','Years to range','n more',s=>num(s.toRange,1),
   'Years from the start until it was as near as the reference sites are'],
  ['rank','Rank','n more',s=>ok(s.rank)?s.rank:'\u2013','1 = the largest share']]:[]),
 ['change','Change',REC?'wide':'',s=>tag(s.change,CHANGE[s.change]),
  'Whether the site changed more than its background'],
 ['when','Since','n wide',s=>ok(s.when)?s.when:'\u2013','First year that shows the change'],
 ['size','Size, °','n more',s=>num(s.size,0),'Angle between before and after: 0° = the same, 90° = nothing in common'],
 ['q','False alarms','n more',s=>alarms(s.q),'How many of the sites flagged at least as clearly are false alarms'],
 ['rbar','Alike pixels','n more',s=>num(s.rbar,2),'How alike the pixels are: 1 = all the same'],
 ['valid','With data','n more',s=>pct(s.valid),'Share of the area with data'],
 ['eff','Worth, pixels','n more',s=>num(s.eff,1),
  'How many independent pixels the mean is worth: neighbours say nearly the same']];
let sort=REC?'group':'change',down=false,limit=PAGE;
const coll=new Intl.Collator('en',{numeric:true});
function shareCell(s){if(!ok(s.share))return '\u2013';if(!ok(s.low))return pct(s.share);
 if(extreme(s.low,s.high))return el('span',{title:extreme(s.low,s.high)},above(s.low,s.high)?'\u226599%':'\u22641%');
 return [pct(s.share),el('small',{class:'soft band'},Math.round(100*s.low)+'\u2013'+Math.round(100*s.high))];}
function value(s,key){return ORDER[key]?(ok(s[key])?ORDER[key].indexOf(s[key]):null):s[key];}
function compare(a,b,key,down){const x=value(a,key),y=value(b,key);
 if(!ok(x)||!ok(y))return ok(x)?-1:ok(y)?1:0; // what is missing stays last, both ways
 const r=typeof x==='number'?x-y:coll.compare(x,y);return down?-r:r;}
function shown(){const t=$('find').value.trim().toLowerCase(),want=['role','group','change'].map(k=>[k,$(k).value]);
 const rows=S.filter(s=>(!t||s.id.toLowerCase().includes(t)||(s.name||'').toLowerCase().includes(t))
  &&want.every(([k,v])=>!v||s[k]===v));
 return rows.sort((a,b)=>compare(a,b,sort,down)||compare(a,b,'role')||compare(a,b,'share')||compare(a,b,'id'));}
function filters(){const f=['role','group','change'].filter(k=>$(k).value).map(k=>CALLED[$(k).value]||$(k).value);
 if($('find').value.trim())f.unshift('name with \u201c'+$('find').value.trim()+'\u201d');return f.join(', ');}
function list(){const rows=shown(),body=el('tbody'),part=rows.slice(0,limit);
 for(const s of part){const tr=el('tr',{'data-id':s.id});
  for(const [key,,cls,show] of COLS){const td=el('td',{class:cls});
   if(key==='id'){td.append(el('button',{type:'button',title:s.name||s.id,onclick:()=>go(s)},s.id));
    if(D.hasRoles)td.append(' ',el('small',{class:'role '+s.role},s.role));}
   else td.append(...[].concat(show(s)));tr.append(td);}body.append(tr);}
 if(!rows.length)body.append(el('tr',{},el('td',{colspan:COLS.length,class:'none'},'No site matches.')));
 $('rows').tBodies[0].replaceWith(body);
 const all=rows.length===S.length;
 $('count').textContent=rows.length?all?many(S.length,'site'):n0(rows.length)+' of '+many(S.length,'site')
  :'no site matches';
 const left=rows.length-part.length;$('more').hidden=!left;
 $('more').textContent='Show '+Math.min(PAGE,left)+' more ('+n0(left)+' not shown)';
 $('printed').textContent=(left?'The first '+n0(part.length)+' of ':rows.length?'All ':'None: ')
  +many(rows.length,'site')
  +(all?'':' that match (of '+n0(S.length)+'); only: '+filters())+'.';
 for(const th of $('rows').querySelectorAll('th'))
  th.setAttribute('aria-sort',th.dataset.key===sort?(down?'descending':'ascending'):'none');
 for(const b of $('rows').querySelectorAll('th button'))
  b.lastChild.textContent=b.parentNode.dataset.key===sort?(down?' ▾':' ▴'):'';
 const keep=new Set(rows.map(s=>s.id));
 for(const p of document.querySelectorAll('#map path[data-id]'))p.style.opacity=keep.has(p.dataset.id)?1:.12;}
function afresh(){limit=PAGE;list();}
function head(){const tr=el('tr');
 for(const [key,name,cls,,says] of COLS)tr.append(el('th',{class:cls,scope:'col','data-key':key},
  el('button',{type:'button',title:says,onclick:()=>{down=sort===key?!down:false;sort=key;afresh();}},
   name,el('span',{'aria-hidden':'true'},''))));
 $('rows').tHead.append(tr);
 for(const key of ['role','group','change']){
  const seen=new Set(S.map(s=>s[key]).filter(Boolean)),had=ORDER[key].filter(v=>seen.has(v));
  for(const v of had)$(key).append(el('option',{value:v},CALLED[v]||v));
  $(key).hidden=!had.length||(key==='role'&&!D.hasRoles);$(key).addEventListener('change',afresh);}
 $('find').addEventListener('input',afresh);
 $('more').addEventListener('click',()=>{limit+=PAGE;list();});
 $('expert').addEventListener('change',e=>$('rows').classList.toggle('all',e.target.checked));}
"""
