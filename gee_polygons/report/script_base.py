"""Script of the report, first part: the data, making elements, numbers in words, colours."""

from typing import Final

JS: Final = r"""
'use strict';
const D=JSON.parse(document.getElementById('data').textContent),S=D.sites,BYID=new Map(S.map(s=>[s.id,s]));
const $=i=>document.getElementById(i),NS='http://www.w3.org/2000/svg',REC=D.hasRecovery;
const GREY='#7c8a84';
const GROUP={declining:'#b3261e',stalled:'#946010','no evidence':'#6b7773',recovering:'#0b6e4f'};
const CHANGE={persistent:'#0072b2','last year only':'#b04a10',returned:'#a2528a',none:'#66746d','no data':'#ffffff'};
const CALLED={none:'no change shown',persistent:'lasting'};
// what an officer needs first; sorting by these columns follows the order, not the alphabet
const ORDER={group:Object.keys(GROUP),change:Object.keys(CHANGE),role:['restoration','other','control','reference']};
function el(tag,props,...kids){const e=document.createElement(tag);
 for(const k in props||{}){if(k==='class')e.className=props[k];else if(k==='style')e.style.cssText=props[k];
  else if(k.startsWith('on'))e.addEventListener(k.slice(2),props[k]);else e.setAttribute(k,props[k]);}
 for(const k of kids)e.append(k);return e;}
function sv(tag,props,text){const e=document.createElementNS(NS,tag);
 for(const k in props)e.setAttribute(k,props[k]);if(text!==undefined)e.textContent=text;return e;}
const ok=v=>v!==null&&v!==undefined;
const pct=v=>ok(v)?Math.round(100*v)+'%':'\u2013',num=(v,d)=>ok(v)?v.toFixed(d):'\u2013';
const n0=n=>n.toLocaleString('en'),many=(n,what)=>n0(n)+' '+what+(n===1?'':'s');
const area=v=>!ok(v)?'\u2013':v<.1?'<0.1':num(v,1);
const alarms=q=>!ok(q)?'\u2013':q<.001?'<0.1%':(100*q).toFixed(q<.1?1:0)+'%';
const signed=v=>(v>=0?'+':'\u2212')+Math.abs(100*v).toFixed(1)+'%';
// a band is cut to 0..1: cut at both ends it would look like certainty
const above=(lo,hi)=>lo>=.995&&hi>=.995,below=(lo,hi)=>lo<=.005&&hi<=.005;
const extreme=(lo,hi)=>above(lo,hi)?'99% or more':below(lo,hi)?'1% or less':'';
function shareText(v,lo,hi){if(!ok(v))return 'no share';
 return (ok(lo)&&extreme(lo,hi))||pct(v)+(ok(lo)?' ('+pct(lo)+' to '+pct(hi)+')':'');}
const VIR=[[68,1,84],[59,82,139],[33,145,140],[94,201,98],[253,231,37]];
function ramp(t){t=Math.max(0,Math.min(1,t))*4;const i=Math.min(3,Math.floor(t)),f=t-i;
 return 'rgb('+VIR[i].map((a,k)=>Math.round(a+(VIR[i+1][k]-a)*f)).join(',')+')';}
function tag(text,colour){return el('span',{class:colour==='#ffffff'?'tag plain':'tag',
 style:'background:'+(colour||'#6b7773')},CALLED[text]||text);}
"""
