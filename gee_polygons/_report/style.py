"""Style sheet of the report: one column on a phone, two on a desk, plain on paper."""

from typing import Final

CSS: Final = """
:root{--ink:#1d2a26;--soft:#5a6964;--line:#d9e0dc;--paper:#fff;--wash:#f4f7f5;--go:#0b6e4f}
*{box-sizing:border-box}
body{margin:0;font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
 color:var(--ink);background:var(--wash)}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 20px}
header{padding-top:28px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px}
h2{font-size:17px;margin:0 0 10px}
h3{font-size:14px;margin:18px 0 6px;color:var(--soft);font-weight:600}
p{margin:6px 0}
.soft{color:var(--soft)}
.note{background:#fff6dd;border-left:4px solid #d99a00;padding:8px 12px;margin:10px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px;margin:16px 0}
.tile{background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:10px 14px}
.tile b{display:block;font-size:24px;line-height:1.2;font-variant-numeric:tabular-nums}
.tile span{font-size:13px;color:var(--soft)}
.panel{background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:16px;margin:0 0 16px}
.bar{display:flex;flex-wrap:wrap;gap:8px;align-items:center;margin-bottom:10px}
.bar label{font-size:13px;color:var(--soft)}
input,select,button{font:inherit;padding:6px 10px;
 border:1px solid #b9c5bf;border-radius:6px;background:#fff;color:inherit}
button{cursor:pointer}
button:focus-visible,input:focus-visible,select:focus-visible,a:focus-visible{outline:3px solid #7cc6ac}
#map svg{width:100%;height:auto;max-height:520px;display:block;background:#eef3f0;border-radius:6px}
#map path{stroke:#22332c;stroke-width:1;cursor:pointer;vector-effect:non-scaling-stroke}
#map path:hover{stroke-width:3}
.legend{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:13px;margin-top:8px;align-items:center}
.swatch{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:5px;vertical-align:-1px;
 border:1px solid #0003}
.ramp{width:130px;height:12px;border-radius:3px;border:1px solid #0003}
.scroll{overflow:auto;max-height:640px;border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;text-align:left;border-bottom:1px solid var(--line);white-space:nowrap}
th.n,td.n{text-align:right}
thead th{position:sticky;top:0;background:#e7eeea;z-index:1;padding:0}
thead button{border:0;background:none;width:100%;padding:7px 10px;text-align:inherit;font-weight:600;border-radius:0}
tbody tr:hover{background:#f0f6f3}
td button{border:0;background:none;padding:2px 0;color:var(--go);text-decoration:underline;text-align:left}
.tag{display:inline-block;border-radius:10px;padding:0 9px;font-size:13px;line-height:20px;color:#fff}
dialog{width:min(1040px,96vw);max-height:94vh;border:1px solid #9fb0a8;border-radius:10px;padding:0;color:inherit}
dialog::backdrop{background:#10201a99}
.head{display:flex;justify-content:space-between;gap:12px;align-items:center;position:sticky;top:0;background:#fff;
 padding:12px 18px;border-bottom:1px solid var(--line);z-index:2}
.body{padding:6px 18px 20px}
.two{display:grid;grid-template-columns:1fr 1fr;gap:6px 24px}
.two>div{min-width:0}
.limits{margin:4px 0 0;padding-left:20px}.limits li{margin:3px 0}
small{font-size:12px}.strip{overflow-x:auto}
.body img{max-width:100%;height:auto;border-radius:6px}
svg text{font:12px system-ui,sans-serif;fill:#33443d}
.chart{width:100%;max-width:500px;height:auto}
footer{padding-bottom:40px;font-size:13px;color:var(--soft)}
footer dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin:8px 0;overflow-wrap:anywhere}
footer dd{margin:0}
@media(max-width:640px){
 header,main,footer{padding-left:12px;padding-right:12px}
 h1{font-size:21px}.panel{padding:12px}.tiles{grid-template-columns:1fr 1fr}.two{grid-template-columns:1fr}
 dialog{width:100vw;max-width:100vw;max-height:100vh;height:100vh;margin:0;border:0;border-radius:0}
 .wide{display:none}th,td{padding:6px 7px}thead button{padding:7px}.scroll{max-height:none}
 thead button{white-space:normal}#rows td,#rows th{padding-left:6px;padding-right:6px}
 .bar input{flex:1 1 100%}.bar select{flex:1 1 40%}input,select{font-size:16px}
 .strip img{max-width:none;height:120px}
 footer dl{grid-template-columns:1fr}footer dt{font-weight:600}
}
@media print{
 body{background:#fff;font-size:11px}.bar,.head button{display:none}.scroll{max-height:none;overflow:visible;border:0}
 .panel,.tile{border-color:#999;break-inside:avoid}#list{break-inside:auto}thead th{position:static}
 thead{display:table-header-group}#list>p.soft,#count{display:none}
 table{font-size:9.5px}th,td,thead button{padding:3px 5px}.tag{font-size:9.5px;line-height:15px;padding:0 6px}
 header,main,footer{max-width:none;padding:0}.tile b{font-size:18px}#map svg{max-height:300px}
 tr{break-inside:avoid}dialog::backdrop{display:none}
 body:has(dialog[open])>:is(header,main),body:has(dialog[open])>footer dl{display:none}
 :focus,:focus-visible{outline:none!important}
 .legend,footer,.tile span,h3{font-size:10px}h1{font-size:20px}h2{font-size:14px}
 dialog[open]{position:static;width:100%;max-height:none;border:0;display:block}
 *{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
"""
