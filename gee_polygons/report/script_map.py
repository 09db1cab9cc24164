"""Script of the report, the map: colours, legend, scale bar, zoom. What it shows stands in the list too."""

from typing import Final

JS: Final = r"""
let colour=REC?'group':'change',view=null,svg=null;
const CROWD=300;
function fill(s){if(colour==='pca')return s.rgb||'#fff';
 if(colour==='change')return CHANGE[s.change]||'#fff';
 if(colour==='group')return !s.group?'#fff':s.group==='no evidence'?GREY:GROUP[s.group];
 return ok(s.share)?ramp(s.share):s.group?GREY:'#fff';}
function hint(s){
 const c=CALLED[s.change]||s.change;return s.id+(D.hasRoles?' ('+s.role+')':'')+(s.group?': '+s.group:'')
 +(ok(s.share)?', '+shareText(s.share,s.low,s.high):'')+(s.change==='none'?'':'; change: '+c);}
function map(){if(!D.map)return;const drawn=S.filter(s=>s.path);
 svg=sv('svg',{'aria-hidden':'true'});if(drawn.length>CROWD)svg.classList.add('crowd');
 // references and controls last: their outlines stay on top
 for(const s of drawn.sort((a,b)=>compare(a,b,'role'))){
  const p=sv('path',{d:s.path,'fill-rule':'evenodd','data-id':s.id,class:s.role});
  p.append(sv('title',{},hint(s)));p.addEventListener('click',()=>go(s));svg.append(p);}
 svg.append(sv('path',{class:'scale'}),sv('text',{class:'scale'}));
 $('map').append(svg);see(D.map.box.slice());paint();
 const centre=()=>[view[0]+view[2]/2,view[1]+view[3]/2];
 $('in').addEventListener('click',()=>zoom(.5,...centre()));
 $('out').addEventListener('click',()=>zoom(2,...centre()));
 $('whole').addEventListener('click',()=>see(D.map.box.slice()));
 // a plain wheel scrolls the page; a pinch on a touchpad arrives as a wheel with Ctrl
 svg.addEventListener('wheel',e=>{if(e.ctrlKey){e.preventDefault();zoom(Math.exp(e.deltaY/200),...place(e));}},
  {passive:false});
 let from=null,held=false;
 svg.addEventListener('pointerdown',e=>{if(view[2]<D.map.box[2]){from=place(e);held=false;}});
 svg.addEventListener('pointermove',e=>{if(!from)return;const at=place(e),unit=1/svg.getScreenCTM().a;
  if(!held&&Math.hypot(at[0]-from[0],at[1]-from[1])<5*unit)return;
  if(!held){svg.setPointerCapture(e.pointerId);held=true;}
  see([view[0]+from[0]-at[0],view[1]+from[1]-at[1],view[2],view[3]]);});
 for(const end of ['pointerup','pointercancel'])svg.addEventListener(end,()=>from=null);
 window.addEventListener('resize',()=>bar());}
function place(e){const p=new DOMPoint(e.clientX,e.clientY).matrixTransform(svg.getScreenCTM().inverse());
 return [p.x,p.y];}
function zoom(f,x,y){const b=D.map.box,w=Math.min(b[2],Math.max(b[2]/64,view[2]*f)),r=w/view[2];
 see([x-(x-view[0])*r,y-(y-view[1])*r,w,view[3]*r]);}
function see(v){const b=D.map.box;for(const i of [0,1])v[i]=Math.max(b[i],Math.min(v[i],b[i]+b[i+2]-v[i+2]));
 view=v;svg.setAttribute('viewBox',v.join(' '));const near=v[2]<b[2];
 svg.style.touchAction=near?'none':'';svg.style.cursor=near?'grab':'';
 $('out').disabled=$('whole').disabled=!near;bar();}
function bar(){const m=svg.getScreenCTM(),unit=m&&m.a?1/m.a:1,want=view[2]/5/D.map.metre;
 const ten=10**Math.floor(Math.log10(want)),metres=Math.max(...[1,2,5].map(k=>k*ten).filter(k=>k<=want));
 const x=view[0]+10*unit,y=view[1]+view[3]-8*unit,long=metres*D.map.metre;
 svg.querySelector('path.scale').setAttribute('d',`M${x} ${y-7*unit}V${y}H${x+long}V${y-7*unit}`);
 const t=svg.querySelector('text');t.setAttribute('x',x+long+8*unit);t.setAttribute('y',y);
 t.style.fontSize=13*unit+'px';t.style.strokeWidth=3*unit+'px';
 t.textContent=metres>=1000?metres/1000+' km':metres+' m';}
function paint(){if(!D.map)return;
 for(const p of document.querySelectorAll('#map path[data-id]'))p.setAttribute('fill',fill(BYID.get(p.dataset.id)));
 const g=$('legend'),has=(k,v)=>S.some(s=>s.path&&s[k]===v);g.replaceChildren();
 const item=(t,c,cls)=>g.append(el('span',{},el('span',{class:'swatch '+(cls||''),style:'background:'+c}),t));
 if(colour==='pca')g.append(el('span',{},'Alike colours, alike land, in the last year with data ('+D.pca+').'));
 else if(colour==='change'){for(const k in CHANGE)if(has('change',k))item(CALLED[k]||k,CHANGE[k]);}
 else if(colour==='group'){for(const k in GROUP)if(has('group',k))item(k,k==='no evidence'?GREY:GROUP[k]);}
 else{const r=el('span',{class:'ramp',style:'background:linear-gradient(90deg,'+[0,.25,.5,.75,1].map(ramp)+')'});
  g.append('0%',r,'100% of the way to the references');
  if(S.some(s=>s.path&&s.group&&!ok(s.share)))item('no share',GREY);}
 for(const r of ['reference','control'])if(has('role',r))item(r+' site','#fff',r);
 if(REC&&(colour==='group'||colour==='share')&&has('role','other'))item('other site','#fff');}
"""
