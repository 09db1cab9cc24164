"""Script of the report, the charts of a site. A year without data breaks the band and dashes the line."""

from typing import Final

JS: Final = r"""
function frame(years,lo,hi,unit,label){const W=480,H=230,L=46,R=24,T=12,B=30;
 const svg=sv('svg',{viewBox:`0 0 ${W} ${H}`,class:'chart',role:'img','aria-label':label});
 const x=y=>L+(W-L-R)*(years.length<2?.5:(y-years[0])/(years[years.length-1]-years[0]));
 const y=v=>T+(H-T-B)*(1-(v-lo)/(hi-lo));
 for(let i=0;i<=4;i++){const v=lo+(hi-lo)*i/4;svg.append(sv('line',{x1:L,x2:W-R,y1:y(v),y2:y(v),stroke:'#dfe6e2'}),
  sv('text',{x:L-6,y:y(v)+4,'text-anchor':'end'},unit==='%'?Math.round(100*v)+'%':Math.round(v)+'°'));}
 const every=Math.ceil(years.length/9);
 years.forEach((v,i)=>{if(i%every===0)svg.append(sv('text',{x:x(v),y:H-8,'text-anchor':'middle'},v));});
 return {svg,x,y};}
function line(f,years,values,colour,hints){const at=values.map((v,i)=>i).filter(i=>ok(values[i]));
 at.slice(1).forEach((j,k)=>{const i=at[k];f.svg.append(sv('line',{x1:f.x(years[i]),y1:f.y(values[i]),
  x2:f.x(years[j]),y2:f.y(values[j]),stroke:colour,'stroke-width':years[j]-years[i]>1?1.4:2.2,
  'stroke-dasharray':years[j]-years[i]>1?'3 4':'',class:years[j]-years[i]>1?'gap':''}));});
 for(const i of at){const c=sv('circle',{cx:f.x(years[i]),cy:f.y(values[i]),r:3.4,fill:colour});
  if(hints)c.append(sv('title',{},hints(i)));f.svg.append(c);}}
function runs(years,at){const out=[];
 for(const i of at){const r=out[out.length-1];
  if(r&&years[i]-years[r[r.length-1]]===1)r.push(i);else out.push([i]);}return out;}
function bands(f,years,low,high){const at=years.map((y,i)=>i).filter(i=>ok(low[i]));
 for(const r of runs(years,at)){const w=r.length<2?3:0; // a year alone gets a bar
  const up=[...r.map(i=>(f.x(years[i])-w)+' '+f.y(high[i])),...(w?[(f.x(years[r[0]])+w)+' '+f.y(high[r[0]])]:[])];
  const dn=[...(w?[(f.x(years[r[0]])+w)+' '+f.y(low[r[0]])]:[]),
   ...r.slice().reverse().map(i=>(f.x(years[i])-w)+' '+f.y(low[i]))];
  f.svg.append(sv('path',{d:'M'+up.concat(dn).join('L')+'Z',fill:'#0b6e4f',opacity:.2,class:'run'}));}}
function trajectory(s){const t=s.series,years=D.years,last=years[years.length-1];
 const f=frame(years,0,1,'%','Share of the way to the references, year by year; the figures are in the table below');
 bands(f,years,t.low,t.high);
 if(ok(D.range))f.svg.append(sv('line',{x1:f.x(years[0]),x2:f.x(last),y1:f.y(D.range),y2:f.y(D.range),
  stroke:'#0b6e4f','stroke-dasharray':'8 4'}));
 if(ok(s.begun)&&s.begun>=years[0]&&s.begun<=last){
  // the word keeps out of the way of the site's line and of the range's
  const right=f.x(s.begun)>400,high=t.share[years.indexOf(s.begun)]>.5;
  const at=high?.03:ok(D.range)&&Math.abs(D.range-.65)<.1?.4:.6;
  f.svg.append(sv('line',{x1:f.x(s.begun),x2:f.x(s.begun),y1:f.y(0),y2:f.y(1),stroke:'#5a6964',
   'stroke-dasharray':'2 4'}),sv('text',{x:f.x(s.begun)+(right?-4:4),y:f.y(at),
   'text-anchor':right?'end':'start'},'start'));}
 line(f,years,t.share,'#0b6e4f',i=>years[i]+': '+shareText(t.share[i],t.low[i],t.high[i])
  +(ok(t.like[i])?'; similarity to the references '+num(t.like[i],2):''));return f.svg;}
function angles(s){const t=s.series,top=Math.max(20,...t.raw.concat(t.rel).filter(ok));
 const f=frame(D.years,0,Math.ceil(top/20)*20,'°',
  'Distance from its own first years, year by year, with and without the background\u2019s step');
 line(f,D.years,t.raw,'#84918b',i=>D.years[i]+': '+num(t.raw[i],0)+'° as it is');
 line(f,D.years,t.rel,'#0072b2',i=>D.years[i]+': '+num(t.rel[i],0)+'° without the background\u2019s step');
 return f.svg;}
function matrix(s){const n=D.years.length,c=34,o=44,svg=sv('svg',{viewBox:`0 0 ${o+n*c} ${o+n*c}`,class:'chart',
  role:'img','aria-label':'Similarity of each year to each other year; 1 = the same'});
 const vals=s.sim.filter(ok),lo=Math.min(...vals,.9);
 for(let i=0;i<n;i++){svg.append(sv('text',{x:o-6,y:o+i*c+c/2+4,'text-anchor':'end'},D.years[i]),
   sv('text',{x:o+i*c+c/2,y:o-8,'text-anchor':'middle'},"'"+String(D.years[i]).slice(2)));
  for(let j=0;j<n;j++){const v=j<=i?s.sim[i*(i+1)/2+j]:s.sim[j*(j+1)/2+i],t=ok(v)?(v-lo)/(1-lo||1):0;
   const r=sv('rect',{x:o+j*c,y:o+i*c,width:c-1,height:c-1,fill:ok(v)?ramp(t):'#e3e7e5'});
   r.append(sv('title',{},D.years[i]+' and '+D.years[j]+': '+(ok(v)?v.toFixed(3):'no data')));svg.append(r);
   // .43 of this scale is where black and white are both readable (4.5 : 1)
   if(ok(v))svg.append(sv('text',{x:o+j*c+c/2,y:o+i*c+c/2+4,'text-anchor':'middle',
    style:'font-size:11px;pointer-events:none;fill:'+(t>.43?'#000':'#fff')},v>.9995?'1':v.toFixed(2).slice(1)));}}
 return svg;}
"""
