"""Style sheet of the report: one column on a phone, two on a desk, plain on paper."""

from typing import Final

_SCREEN: Final = """
:root{--ink:#1d2a26;--soft:#55645f;--line:#d9e0dc;--edge:#75867e;--paper:#fff;--wash:#f4f7f5;--go:#0b6e4f;
 --reference:#0047ab;--control:#7a1fa2}
*{box-sizing:border-box}
[hidden]{display:none!important}
body{margin:0;font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
 color:var(--ink);background:var(--wash)}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 20px}
header{padding-top:28px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:17px;margin:0 0 10px}
h3{font-size:14px;margin:18px 0 6px;color:var(--soft);font-weight:600}
p{margin:6px 0;overflow-wrap:anywhere}
.soft{color:var(--soft)}
.note{background:#fff6dd;border-left:4px solid #d99a00;padding:8px 12px;margin:10px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(120px,1fr));gap:10px;margin:16px 0}
.tile{background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:10px 14px}
.tile b{display:block;font-size:24px;line-height:1.2;font-variant-numeric:tabular-nums}
.tile span{font-size:13px;color:var(--soft)}
.panel{background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:16px;margin:0 0 16px}
.bar{display:flex;flex-wrap:wrap;gap:8px;align-items:center;margin-bottom:10px}
.bar label{font-size:13px;color:var(--soft)}
input,select,button{font:inherit;padding:6px 10px;border:1px solid var(--edge);border-radius:6px;background:#fff;
 color:inherit}
input[type=checkbox]{vertical-align:-1px;accent-color:var(--go)}
input::placeholder{color:var(--soft);opacity:1}
button{cursor:pointer}.to{border:0;background:none;padding:0;color:var(--go);text-decoration:underline}button:disabled{color:#6b7773;border-color:var(--line);cursor:default}
:is(button,input,select,a,[tabindex]):focus-visible{outline:3px solid var(--go);outline-offset:1px}
thead button:focus-visible,.scroll:focus-visible{outline-offset:-3px}
#sheet,#printed{display:none}
"""
_MAP: Final = """
#map svg{width:100%;height:auto;min-height:240px;max-height:520px;display:block;background:#eef3f0;border-radius:6px}
#map path{stroke:#22332c;stroke-width:1;cursor:pointer;vector-effect:non-scaling-stroke}
#map .crowd path:not(.scale){stroke-width:.4}
#map path.reference{stroke:var(--reference);stroke-width:3}
#map path.control{stroke:var(--control);stroke-width:2.5;stroke-dasharray:4 2}
#map .crowd path:is(.reference,.control){stroke-width:1.6}
#map path:hover{stroke-width:3}
#map svg path.scale{fill:none;stroke:#22332c;stroke-width:2;pointer-events:none}
#map text.scale{fill:#22332c;stroke:#eef3f0;paint-order:stroke}
.zoom{margin-left:auto;display:flex;gap:4px}.zoom button{min-width:36px}
.legend{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:13px;margin-top:8px;align-items:center}
.swatch{display:inline-block;width:13px;height:13px;border-radius:3px;margin-right:5px;vertical-align:-2px;
 border:1px solid var(--edge)}
.swatch.reference{border:3px solid var(--reference)}.swatch.control{border:2px dashed var(--control)}
.ramp{width:130px;height:12px;border-radius:3px;border:1px solid var(--edge)}
"""
_TABLE: Final = """
.scroll{overflow:auto;max-height:640px;border:1px solid var(--line);border-radius:6px;
 background:linear-gradient(90deg,#fff 40%,#fff0) 0/40px,linear-gradient(270deg,#fff 40%,#fff0) 100%/40px,
  linear-gradient(90deg,#0004,#0000) 0/14px,linear-gradient(270deg,#0004,#0000) 100%/14px;
 background-repeat:no-repeat;background-attachment:local,local,scroll,scroll} /* a shadow: there is more */
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;text-align:left;border-bottom:1px solid var(--line);white-space:nowrap}
th.n,td.n{text-align:right}
td.name{white-space:normal;overflow-wrap:anywhere;min-width:9em;max-width:22em}
td.none{text-align:center;padding:24px;color:var(--soft)}
thead th{position:sticky;top:0;background:#e7eeea;z-index:1}
#rows thead th{padding:0}
thead button{border:0;background:none;width:100%;padding:7px 10px;text-align:inherit;font-weight:600;border-radius:0}
tbody tr:hover{background:#f0f6f3}
td button{border:0;background:none;padding:2px 0;color:var(--go);text-decoration:underline;text-align:left;
 overflow-wrap:anywhere}
#rows:not(.all) .more{display:none}
#rows.all thead button{white-space:normal}
.tag{display:inline-block;
 white-space:nowrap;border-radius:10px;padding:0 9px;font-size:13px;line-height:20px;color:#fff}
.tag.plain{color:var(--ink);box-shadow:inset 0 0 0 1px var(--edge)}
.role{color:var(--soft);white-space:nowrap;border:1px solid var(--line);border-radius:8px;padding:0 6px}
.role.reference{color:var(--reference);border-color:currentcolor}
.role.control{color:var(--control);border-color:currentcolor}
small{font-size:12px}.band{margin-left:5px;white-space:nowrap}
"""
_SHEET: Final = """
dialog{width:min(1040px,96vw);max-height:94vh;border:1px solid #9fb0a8;border-radius:10px;padding:0;color:inherit}
dialog::backdrop{background:#10201a99}
.head{display:flex;justify-content:space-between;gap:12px;align-items:center;position:sticky;top:0;background:#fff;
 padding:12px 18px;border-bottom:1px solid var(--line);z-index:2}
.head h2{margin:0;min-width:0;overflow:hidden;overflow-wrap:anywhere;display:-webkit-box;-webkit-box-orient:vertical;
 -webkit-line-clamp:2;line-clamp:2}
.head button{flex:none}
.body{padding:6px 18px 20px}
.two{display:grid;grid-template-columns:1fr 1fr;gap:6px 24px}
.two>div{min-width:0}.two th{white-space:normal}.two table{font-size:13px}.two :is(th,td){padding:5px}
.limits{margin:4px 0 0;padding-left:20px}.limits li{margin:3px 0;overflow-wrap:anywhere}
.strip{overflow-x:auto}
.body img,#sheet img{max-width:100%;height:auto;border-radius:6px}
svg text{font:12px system-ui,sans-serif;fill:#33443d}
.chart{width:100%;max-width:500px;height:auto}
footer{padding-bottom:40px}
footer,.from{font-size:13px;color:var(--soft)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin:8px 0;overflow-wrap:anywhere}
dd{margin:0}
"""
_PHONE: Final = """
@media(max-width:640px){
 header,main,footer{padding-left:12px;padding-right:12px}
 h1{font-size:21px}.panel{padding:12px}.tiles{grid-template-columns:1fr 1fr}.two{grid-template-columns:1fr}
 dialog{width:100vw;max-width:100vw;max-height:100vh;height:100vh;margin:0;border:0;border-radius:0}
 #rows:not(.all) .wide{display:none}th,td{padding:6px 7px}thead button{padding:7px}#list .scroll{max-height:none}
 thead button{white-space:normal}#rows :is(td,th){padding-left:6px;padding-right:6px}
 #rows td.name{min-width:7em}.band{display:block;margin:0}
 .bar input[type=search]{flex:1 1 100%}.bar select{flex:1 1 44%;min-width:0}input,select{font-size:16px}
 .body .strip img{max-width:none;height:120px}
 dl{grid-template-columns:1fr}dt{font-weight:600}
}
"""
_PAPER: Final = """
@media print{
 body{background:#fff;font-size:11px}.bar,.hint,#more,.to{display:none}
 .scroll{max-height:none;overflow:visible;border:0}
 .panel,.tile{border-color:#999;break-inside:avoid}#list,#reading{break-inside:auto}thead th{position:static}
 thead{display:table-header-group}#printed{display:block}
 table{font-size:9.5px}th,td,thead button{padding:3px 5px}.tag{font-size:9.5px;line-height:15px;padding:0 6px}
 #rows :is(th,td){white-space:normal}
 #rows.all,#rows.all :is(small,.tag){font-size:7.5px}
 #rows.all :is(th,td,thead button){padding:2px 3px}#rows thead th{padding:0}#rows td.name{min-width:0}
 #rows .band{display:inline;margin-left:4px}
 header,main,footer{max-width:none;padding:0}.tile b{font-size:18px}#map svg{max-height:300px}
 tr,.two>div{break-inside:avoid}
 :focus,:focus-visible{outline:none!important}
 .legend,footer,.tile span,small{font-size:9.5px}h3{font-size:11px}h1{font-size:20px}h2{font-size:14px}
 dialog{display:none!important}
 html[data-sheet] :is(main,.tiles){display:none}html[data-sheet] #sheet{display:block}
 #sheet .chart{max-width:330px}.strip{overflow:visible}.strip img{height:auto!important;max-width:100%!important}
 *{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
"""
CSS: Final = _SCREEN + _MAP + _TABLE + _SHEET + _PHONE + _PAPER
