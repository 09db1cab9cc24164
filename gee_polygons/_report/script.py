"""Script of the report: plain JavaScript, no library, no network; all text goes in as text, never as markup."""

from typing import Final

JS: Final = r"""
'use strict';
const D=JSON.parse(document.getElementById('data').textContent),S=D.sites;
const $=i=>document.getElementById(i),NS='http://www.w3.org/2000/svg';
const GROUP={recovering:'#0b6e4f',stalled:'#946010',declining:'#b3261e','no evidence':'#6b7773'};
const CHANGE={none:'#66746d',persistent:'#0072b2',returned:'#a2528a','last year only':'#b04a10','no data':'#c4ccc8'};
const CALLED={none:'no change shown',persistent:'lasting'};
function el(tag,props,...kids){const e=document.createElement(tag);
 for(const k in props||{}){if(k==='class')e.className=props[k];else if(k==='style')e.style.cssText=props[k];
  else if(k.startsWith('on'))e.addEventListener(k.slice(2),props[k]);else e.setAttribute(k,props[k]);}
 for(const k of kids)e.append(k);return e;}
function sv(tag,props,text){const e=document.createElementNS(NS,tag);
 for(const k in props)e.setAttribute(k,props[k]);if(text!==undefined)e.textContent=text;return e;}
const ok=v=>v!==null&&v!==undefined;
const pct=v=>ok(v)?Math.round(100*v)+'%':'\u2013',num=(v,d)=>ok(v)?v.toFixed(d):'\u2013';
const n0=n=>n.toLocaleString('en');
const VIR=[[68,1,84],[59,82,139],[33,145,140],[94,201,98],[253,231,37]];
function ramp(t){t=Math.max(0,Math.min(1,t))*4;const i=Math.min(3,Math.floor(t)),f=t-i;
 return 'rgb('+VIR[i].map((a,k)=>Math.round(a+(VIR[i+1][k]-a)*f)).join(',')+')';}
function tag(text,colour){const style='background:'+(colour||'#6b7773')+(text==='no data'?';color:#1d2a26':'');
 return el('span',{class:'tag',style},text);}
const REC=D.hasRecovery;
const COLS=[['id','Site','',s=>s.id,'Name of the site'],['area','Area, ha','n wide',s=>num(s.area,1),'Hectares'],
 ['begun','Start','n wide',s=>ok(s.begun)?s.begun:'\u2013','Year in which restoration began'],
 ...(REC?[['group','Recovery','',s=>s.group?tag(s.group,GROUP[s.group]):'\u2013',
   'What the share and its rate allow to be said'],
  ['share','Share','n',s=>ok(s.share)?[pct(s.share),el('small',{class:'soft wide'},
   ' '+Math.round(100*s.low)+'\u2013'+Math.round(100*s.high))]:'\u2013',
   'Share of the way to the reference sites, with its '+D.confidence+'% band'],
  ['rate','Per year','n wide',s=>ok(s.rate)?
   (s.rate>=0?'+':'\u2212')+Math.abs(100*s.rate).toFixed(1)+'%':'\u2013','Share gained a year since the start']]:[]),
 ['change','Change',REC?'wide':'',s=>tag(CALLED[s.change]||s.change,CHANGE[s.change]),
  'Whether the site changed more than its background'],
 ['when','Since','n wide',s=>ok(s.when)?s.when:'\u2013','First year that shows the change'],
 ['size','Size, °','n wide',s=>num(s.size,0),'Angle between before and after: 0° = the same, 90° = nothing in common'],
 ['q','q','n wide',s=>ok(s.q)?(s.q<0.001?'< 0.001':s.q.toFixed(3)):'\u2013',
  'Share of false alarms among all sites flagged at least as clearly'],
 ['rbar','Rbar','n wide',s=>num(s.rbar,2),'How alike the pixels are: 1 = all the same'],
 ['valid','Valid','n wide',s=>pct(s.valid),'Share of the area with data']];
let sort='id',down=false,colour=D.hasRecovery?'recovery':'change';
const coll=new Intl.Collator('en',{numeric:true});
function shown(){const t=$('find').value.trim().toLowerCase(),g=$('group').value,c=$('change').value;
 const rows=S.filter(s=>(!t||s.id.toLowerCase().includes(t)||(s.name||'').toLowerCase().includes(t))
  &&(!g||s.group===g)&&(!c||s.change===c));
 rows.sort((a,b)=>{const x=a[sort],y=b[sort];if(!ok(x)&&!ok(y))return 0;if(!ok(x))return 1;if(!ok(y))return -1;
  const r=typeof x==='number'?x-y:coll.compare(x,y);return down?-r:r;});return rows;}
function list(){const rows=shown(),body=el('tbody');
 for(const s of rows){const tr=el('tr',{'data-id':s.id});
  for(const [key,,cls,show] of COLS){const td=el('td',{class:cls});
   if(key==='id')td.append(el('button',{type:'button',title:s.name||s.id,onclick:()=>open(s)},s.id));
   else td.append(...[].concat(show(s)));tr.append(td);}body.append(tr);}
 $('rows').tBodies[0].replaceWith(body);
 $('count').textContent=rows.length===S.length?n0(S.length)+' sites':n0(rows.length)+' of '+n0(S.length)+' sites';
 for(const th of $('rows').querySelectorAll('th'))
  th.setAttribute('aria-sort',th.dataset.key===sort?(down?'descending':'ascending'):'none');
 for(const b of $('rows').querySelectorAll('th button'))
  b.lastChild.textContent=b.parentNode.dataset.key===sort?(down?' ▾':' ▴'):'';
 const keep=new Set(rows.map(s=>s.id));
 for(const p of document.querySelectorAll('#map path[data-id]'))p.style.opacity=keep.has(p.dataset.id)?1:.12;}
function head(){const tr=el('tr');
 for(const [key,name,cls,,says] of COLS)tr.append(el('th',{class:cls,scope:'col','data-key':key},
  el('button',{type:'button',title:says,onclick:()=>{down=sort===key?!down:false;sort=key;list();}},name,el('span',{},''))));
 $('rows').tHead.append(tr);}
function fill(s){if(colour==='pca')return s.rgb||'#ddd';
 if(colour==='change')return CHANGE[s.change]||'#ddd';
 return ok(s.share)?ramp(s.share):'#d5dbd8';}
function map(){if(!D.map)return;const svg=sv('svg',{viewBox:D.map.box,role:'img','aria-label':'Map of the sites'});
 for(const s of S){if(!s.path)continue;const p=sv('path',{d:s.path,'fill-rule':'evenodd','data-id':s.id});
  p.append(sv('title',{},s.id+(s.group?': '+s.group+(ok(s.share)?', '+pct(s.share):''):'')));
  p.addEventListener('click',()=>open(s));svg.append(p);}
 const b=D.map.bar;svg.append(sv('path',{d:b.path,style:'fill:none;stroke:#22332c;stroke-width:2;pointer-events:none'}),
  sv('text',{x:b.x,y:b.y,style:'font-size:'+b.font+'px'},b.text));
 $('map').append(svg);paint();}
function paint(){if(!D.map)return;
 for(const p of document.querySelectorAll('#map path[data-id]'))p.setAttribute('fill',fill(S.find1[p.dataset.id]));
 const g=$('legend');g.replaceChildren();
 const item=(c,t)=>g.append(el('span',{},el('span',{class:'swatch',style:'background:'+c}),t));
 if(colour==='pca')g.append(el('span',{},'Colours of the last year: '+D.pca+'. Alike colours, alike land.'));
 else if(colour==='change')for(const k in CHANGE)item(CHANGE[k],CALLED[k]||k);
 else{const r=el('span',{class:'ramp',style:'background:linear-gradient(90deg,'+[0,.25,.5,.75,1].map(ramp)+')'});
  g.append('0%',r,'100% of the way to the references');item('#d5dbd8','no share (reference, control, no evidence)');}}
function frame(years,lo,hi,unit){const W=480,H=230,L=46,R=24,T=12,B=30;
 const svg=sv('svg',{viewBox:`0 0 ${W} ${H}`,class:'chart',role:'img'});
 const x=y=>L+(W-L-R)*(years.length<2?.5:(y-years[0])/(years[years.length-1]-years[0]));
 const y=v=>T+(H-T-B)*(1-(v-lo)/(hi-lo));
 for(let i=0;i<=4;i++){const v=lo+(hi-lo)*i/4;svg.append(sv('line',{x1:L,x2:W-R,y1:y(v),y2:y(v),stroke:'#dfe6e2'}),
  sv('text',{x:L-6,y:y(v)+4,'text-anchor':'end'},unit==='%'?Math.round(100*v)+'%':Math.round(v)+'°'));}
 const every=Math.ceil(years.length/9);
 years.forEach((v,i)=>{if(i%every===0)svg.append(sv('text',{x:x(v),y:H-8,'text-anchor':'middle'},v));});
 return {svg,x,y};}
function line(f,years,values,colour,dash){let d='',pen=false;
 values.forEach((v,i)=>{if(!ok(v)){return;}d+=(pen?'L':'M')+f.x(years[i]).toFixed(1)+' '+f.y(v).toFixed(1);pen=true;});
 f.svg.append(sv('path',{d,fill:'none',stroke:colour,'stroke-width':2.2,'stroke-dasharray':dash||''}));
 values.forEach((v,i)=>{if(ok(v))f.svg.append(sv('circle',{cx:f.x(years[i]),cy:f.y(v),r:3.2,fill:colour}));});}
function trajectory(s){const t=s.series,f=frame(D.years,0,1,'%');
 const at=D.years.map((y,i)=>i).filter(i=>ok(t.low[i]));
 if(at.length){const up=at.map(i=>f.x(D.years[i])+' '+f.y(t.high[i]));
  const dn=at.slice().reverse().map(i=>f.x(D.years[i])+' '+f.y(t.low[i]));
  f.svg.append(sv('path',{d:'M'+up.concat(dn).join('L')+'Z',fill:'#0b6e4f',opacity:.18}));}
 const r=D.range;if(ok(r))f.svg.append(sv('line',{x1:f.x(D.years[0]),x2:f.x(D.years[D.years.length-1]),y1:f.y(r),
  y2:f.y(r),stroke:'#0b6e4f','stroke-dasharray':'3 3'}),
  sv('text',{x:f.x(D.years[0])+4,y:f.y(r)+14},'reference range begins'));
 if(ok(s.begun)&&s.begun>=D.years[0]&&s.begun<=D.years[D.years.length-1])f.svg.append(sv('line',{x1:f.x(s.begun),
  x2:f.x(s.begun),y1:f.y(0),y2:f.y(1),stroke:'#777','stroke-dasharray':'2 4'}),
  sv('text',{x:f.x(s.begun)+4,y:f.y(0)-8},'start'));
 line(f,D.years,t.share,'#0b6e4f');return f.svg;}
function angles(s){const t=s.series,top=Math.max(20,...t.raw.concat(t.rel).filter(ok));
 const f=frame(D.years,0,Math.ceil(top/20)*20,'°');
 line(f,D.years,t.raw,'#9aa7a1','5 4');line(f,D.years,t.rel,'#0072b2');return f.svg;}
function matrix(s){const n=D.years.length,c=34,o=44,
  svg=sv('svg',{viewBox:`0 0 ${o+n*c} ${o+n*c}`,class:'chart',role:'img'});
 const vals=s.sim.filter(ok),lo=Math.min(...vals,.9);let k=0;
 for(let i=0;i<n;i++){svg.append(sv('text',{x:o-6,y:o+i*c+c/2+4,'text-anchor':'end'},D.years[i]),
   sv('text',{x:o+i*c+c/2,y:o-8,'text-anchor':'middle'},"'"+String(D.years[i]).slice(2)));
  for(let j=0;j<n;j++){const v=j<=i?s.sim[i*(i+1)/2+j]:s.sim[j*(j+1)/2+i],t=ok(v)?(v-lo)/(1-lo||1):0;
   const r=sv('rect',{x:o+j*c,y:o+i*c,width:c-1,height:c-1,fill:ok(v)?ramp(t):'#e3e7e5'});
   r.append(sv('title',{},ok(v)?v.toFixed(3):'no data'));svg.append(r);
   if(ok(v))svg.append(sv('text',{x:o+j*c+c/2,y:o+i*c+c/2+4,'text-anchor':'middle',
    style:'font-size:11px;pointer-events:none;fill:'+(t>.55?'#111':'#fff')},v>.9995?'1':v.toFixed(2).slice(1)));}}
 return svg;}
function open(s){const b=$('body');b.replaceChildren();$('title').textContent=s.id+(s.name?' · '+s.name:'');
 const say=(t,c)=>b.append(el('p',{class:c||''},t));
 if(s.group)b.append(el('p',{},tag(s.group,GROUP[s.group]),' '+s.evidence));
 if(s.change==='none')say('No change beyond what the background and chance explain (q = '+num(s.q,2)+').');
 else if(s.change==='no data')say('Too few years with data to test for a change.');
 else say('Changed since '+s.when+({persistent:', for good so far',returned:', and came back',
  'last year only':': the last year alone shows it, so it may be a bad year'}[s.change]||'')+
  ' ('+num(s.size,0)+'° in all; q '+(s.q<.001?'< 0.001':'= '+s.q.toFixed(3))+').');
 if(ok(s.eighty))say('Reached 80% of the way '+num(s.eighty,1)+' years after its start.');
 else if(ok(s.expected))say('At its present rate it would reach 80% about '+num(s.expected,0)
  +' years after its start.');
 if(s.towards)say('Towards: '+s.towards);
 if(s.strip)b.append(el('h3',{},'Year by year'),el('div',{class:'strip',tabindex:0,role:'group',
  'aria-label':'Pictures, year by year'},el('img',{src:s.strip,alt:'Pictures of '+s.id+', year by year'})));
 else say('This file has no pictures of this site; they are made on request (--pictures).','soft');
 const two=el('div',{class:'two'});
 const part=(t,note,g)=>two.append(el('div',{},el('h3',{},t),g,el('p',{class:'soft'},note)));
 if(s.series.share.some(ok))part('Share of the way to the references','Shaded: '+D.confidence+'% band.',trajectory(s));
 part('Distance from its own baseline','Blue: with the background\u2019s step taken off. Grey: as it is.',angles(s));
 part('Similarity between years','Cosine of the yearly mean directions; 1 = the same.',matrix(s));
 const t=el('table',{},el('thead',{},el('tr',{},...['Year','Data','Rbar','Valid','z'].map(h=>el('th',{class:'n',
  style:'position:static;padding:6px 10px'},h))))),tb=el('tbody');
 D.years.forEach((y,i)=>tb.append(el('tr',{},...[y,s.series.status[i]||(ok(s.series.rbar[i])?'ok':'no data'),
  num(s.series.rbar[i],3),pct(ok(s.series.rbar[i])?s.series.valid[i]:null),num(s.series.z[i],1)]
  .map(v=>el('td',{class:'n'},String(v))))));t.append(tb);
 part('Quality','Rbar: 1 = all pixels alike. Valid: share of the area with data. '
  +'z: distance, against the background.',t);
 b.append(two);
 const d=$('site');if(!d.open)d.showModal();d.scrollTop=0;history.replaceState(null,'','#'+encodeURIComponent(s.id));}
S.find1=Object.fromEntries(S.map(s=>[s.id,s]));
for(const [id,key] of [['group','group'],['change','change']]){
 const seen=[...new Set(S.map(s=>s[key]).filter(Boolean))].sort();
 for(const v of seen)$(id).append(el('option',{value:v},CALLED[v]||v));
 if(!seen.length)$(id).hidden=true;$(id).addEventListener('change',list);}
$('find').addEventListener('input',list);
$('close').addEventListener('click',()=>$('site').close());
$('site').addEventListener('close',()=>history.replaceState(null,'',location.pathname+location.search));
$('site').addEventListener('click',e=>{if(e.target===$('site'))$('site').close();});
$('colour').value=colour;$('colour').addEventListener('change',e=>{colour=e.target.value;paint();});
head();map();list();
const wanted=decodeURIComponent(location.hash.slice(1));if(S.find1[wanted])open(S.find1[wanted]);
document.documentElement.dataset.ready='yes';
"""
