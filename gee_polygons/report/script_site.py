"""Script of the report, a site's sheet: what is known of it, what to beware of, charts, where it comes from."""

from typing import Final

JS: Final = r"""
const SMALL_PIXELS=50,MIXED=.8,OFF_DEG=30;
function said(s){const out=[];
 if(s.group){const p=el('p',{},tag(s.group,GROUP[s.group]),' ');
  p.append(ok(s.share)?shareText(s.share,s.low,s.high)+' of the way in '+s.year
   +(ok(s.rate)?', '+signed(s.rate)+' a year ('+signed(s.rateLow)+' to '+signed(s.rateHigh)+')':'')
   +(s.evidence?'; '+s.evidence:'')+'.':s.evidence+'.');
  out.push(p);}
 const say=t=>out.push(el('p',{},t));
 if(s.change==='none')say('No change beyond what the background and chance explain.');
 else if(s.change==='no data')say('Too few years with data to test for a change.');
 else say('Changed since '+s.when+({persistent:', for good so far',returned:', and came back',
  'last year only':': the last year alone shows it, so it may be a bad year'}[s.change]||'')+
  ' ('+num(s.size,0)+'° in all; of the sites flagged at least as clearly, about '+alarms(s.q)+' are false alarms).');
 if(ok(s.eighty))say('Reached 80% of the way '+num(s.eighty,1)+' years after its start.');
 else if(ok(s.expected))say('At its present rate it would reach 80% about '+num(s.expected,0)
  +' years after its start, if nothing changes.');
 if(ok(s.toRange))say('As near the references as these are to each other '+num(s.toRange,1)+' years after its start.');
 if(s.towards)say('Towards: '+s.towards);
 const facts=[];if(D.hasRoles)facts.push(s.role+' site');if(ok(s.begun))facts.push('start '+s.begun);
 if(ok(s.area))facts.push(area(s.area)+' ha');
 if(ok(s.rank))facts.push('rank '+n0(s.rank)+' of '+n0(D.ranked)+' by share');
 if(ok(s.eff))facts.push('its mean is worth '+(s.eff<1.05?'one independent pixel':num(s.eff,1)+' independent pixels'));
 if(facts.length)out.push(el('p',{class:'soft'},facts.join(' · ')));return out;}
function beware(s){const out=[];
 if(ok(s.off)&&s.off>=OFF_DEG)out.push('It lies '+num(s.off,0)
  +'° beside the way to the references: did it become something else? The share then says little.');
 if(ok(s.pixels)&&s.pixels<SMALL_PIXELS)out.push('Small: about '+many(Math.max(1,Math.round(s.pixels)),'pixel')
  +' of 10 m. Much of what they show is the surroundings.');
 if(ok(s.rbar)&&s.rbar<MIXED)out.push('Mixed: its pixels differ much (likeness '+num(s.rbar,2)
  +' of 1), so that its mean stands for none of its parts.');
 if(ok(s.valid)&&s.valid<.8)out.push('Only '+pct(s.valid)+' of its area has data in a usual year.');
 return out.map(t=>el('p',{class:'note'},t));}
function quality(s){const t=s.series,rec=t.share.some(ok)||t.like.some(ok);
 const names=['Year','Data',...(rec?['Share','Similarity to the references']:[]),
  'Alike pixels','With data','Against noise'];
 const tb=el('tbody'),had=i=>ok(t.rbar[i]);
 D.years.forEach((y,i)=>tb.append(el('tr',{},...[y,t.status[i]||(had(i)?'ok':'no data'),
  ...(rec?[pct(t.share[i]),num(t.like[i],2)]:[]),num(t.rbar[i],3),pct(had(i)?t.valid[i]:null),num(t.z[i],1)]
  .map((v,k)=>el('td',{class:k===1?'':'n'},String(v))))));
 return el('div',{class:'scroll',tabindex:0,role:'region','aria-label':'Year by year, a table'},el('table',{},
  el('thead',{},el('tr',{},...names.map((h,k)=>el('th',{class:k===1?'':'n',scope:'col'},h)))),tb));}
function sheet(s){const out=[...said(s),...beware(s)];
 if(s.strip)out.push(el('h3',{},'What it looked like'),el('div',{class:'strip',tabindex:0,role:'group',
  'aria-label':'Pictures, year by year'},el('img',{src:s.strip,alt:'Pictures of '+s.id+', year by year'})));
 else out.push(el('p',{class:'soft'},'This page was made without pictures of this site.'));
 const two=el('div',{class:'two'});
 const part=(t,note,g)=>two.append(el('div',{},el('h3',{},t),g,el('p',{class:'soft'},note)));
 if(s.series.share.some(ok))part('Share of the way to the references','Shaded: '+D.confidence
  +'% band, cut at 0 and 100%.'+(ok(D.range)?' Long dashes: where the references\u2019 range begins.':'')
  +' Fine dashes: years without data between.',trajectory(s));
 part('Distance from its own first years','Blue: without the step that its background took too. Grey: as it is.',
  angles(s));
 part('Similarity between years','1 = the two years look the same; the lower, the more they differ.',matrix(s));
 part('Year by year','Alike pixels: 1 = all the same. With data: share of the area. Against noise: the distance '
  +'in units of the background\u2019s usual scatter; 3 and more is unusual.',quality(s));
 out.push(two,el('p',{class:'soft'},$('cant').textContent));return out;}
function show(s){const name=s.id+(s.name&&s.name!==s.id?' · '+s.name:'');
 $('title').textContent=name;$('title').title=name;
 const from=el('div',{class:'soft from'},el('h3',{},'Where this comes from'),
  ...[...$('from').children].map(e=>e.cloneNode(true)));
 $('body').replaceChildren(...sheet(s),from);
 // on paper the dialog is left out and this copy takes the list's place, between heading and provenance
 $('sheet').replaceChildren(el('h2',{},name),...sheet(s));document.documentElement.dataset.sheet='yes';
 const d=$('site');if(!d.open)d.showModal();d.scrollTop=0;}
function go(s){history.pushState({site:true},'','#'+encodeURIComponent(s.id));show(s);}
function named(){const raw=location.hash.slice(1);let id=raw;
 try{id=decodeURIComponent(raw);}catch(e){} // a typed #100% isn't an encoding, and is a name all the same
 return BYID.get(id)||BYID.get(raw);}
let routed=false; // the dialog tells later that it was closed: by then Forward may have opened it again
function route(){const s=named();if(s)show(s);else if($('site').open){routed=true;$('site').close();}}
function leave(){const own=!routed;routed=false;if($('site').open)return;
 delete document.documentElement.dataset.sheet;if(!own||!named())return;
 if(history.state&&history.state.site)history.back();
 else history.replaceState(null,'',location.pathname+location.search);}
"""
