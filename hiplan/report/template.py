"""The Jinja template of the report page, without external resources or scripts."""

PAGE = """
{%- macro spans(pieces) %}{% for text, style in pieces -%}
<span class="{{ style }}">{{ text }}</span>
{%- endfor %}{% endmacro %}
{%- macro picture(data, about) -%}
<div class="picture"><picture>{% if data[1] -%}
<source media="(max-width: 640px)" srcset="data:image/png;base64,{{ data[1] }}">{% endif -%}
<img{% if not data[1] %} class="plain"{% endif %} alt="{{ about }}" src="data:image/png;base64,{{ data[0] }}">
</picture></div>
{%- endmacro -%}
{%- macro panels_table(found) -%}
<div class="card" tabindex="0"><table class="panels">
<tr><th></th>{% for title in found.head %}<th class="num">{{ title }}</th>{% endfor %}</tr>
{% for group in found.groups %}{% for label, cells in group.lines -%}
<tr{% if loop.first and group.first %} class="first"{% endif %}>
{%- if loop.first %}<td>{% else %}<td class="part">{% endif %}{{ label }}</td>
{%- for text, share in cells %}<td class="num" style="--share: {{ share }}%">{{ text }}</td>{% endfor %}</tr>
{% endfor %}{% endfor %}</table></div>
{%- endmacro -%}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{{ name }} · hiplan</title>
<style>
:root { --ink: #1d2430; --dim: #667080; --page: #f5f6f8; --card: #ffffff; --line: #e0e4ea; --bar: #d4e7f5;
  --accent: #0b5c95; --plan: #6a1b9a; --good: #17723b; --warn: #8a5a00; --bad: #b3261e; --soft: #f0f2f5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7ee; --dim: #98a2b3; --page: #12151b; --card: #1b2028;
  --line: #303846; --bar: #1c4464; --accent: #7cbcf0; --plan: #d3a4ee; --good: #74cf94; --warn: #e6b45c;
  --bad: #ff9a91; --soft: #232a34; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto,
  "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 28px 20px 60px; }
header p, .note { color: var(--dim); margin: 5px 0 0; font-size: 14px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 38px 0 12px; } h3 { font-size: 16px; margin: 22px 0 8px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 22px; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 16px; } .tile b { display: block; font-size: 21px; line-height: 1.3; overflow-wrap: anywhere; }
.tile span { color: var(--dim); font-size: 13px; }
.card { padding: 6px 16px; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 15px; }
th, td { padding: 7px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { text-align: left; vertical-align: bottom; white-space: normal; font-weight: 600; color: var(--dim);
  font-size: 13px; }
tr:last-child td { border-bottom: 0; } tr.first td { border-top: 2px solid var(--line); }
.num { text-align: right; font-variant-numeric: tabular-nums; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.text { white-space: normal; min-width: 112px; }
td.num { background: linear-gradient(90deg, var(--bar) var(--share), transparent 0) no-repeat;
  background-size: 100% calc(100% - 10px); background-position: left 5px; }
.picture { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 10px; }
.picture img { display: block; max-width: 100%; margin: 0 auto; } .picture img.plain { width: 680px; }
pre { margin: 0; padding: 12px 0; font: 13.5px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin-bottom: 10px; }
summary { cursor: pointer; padding: 11px 16px; overflow-wrap: anywhere; }
summary b { margin-right: 8px; }
.badge { border: 1px solid currentColor; border-radius: 99px; font-size: 12px; font-weight: 600; padding: 1px 9px;
  white-space: nowrap; }
.story { padding: 2px 16px 16px; overflow-wrap: anywhere; } .story .note { margin-bottom: 12px; }
.card + .picture { margin-top: 10px; } h2 + .note { margin-bottom: 12px; }
td.part { padding-left: 26px; color: var(--dim); } .panels td:first-child { white-space: normal; }
td.value { white-space: normal; overflow-wrap: anywhere; }
.block { padding: 5px 0 5px 14px; border-left: 3px solid transparent; }
.block.plan, .block.revision { border-left-color: var(--plan); background: var(--soft); border-radius: 0 8px 8px 0;
  margin: 10px 0; padding: 9px 14px; }
.block.end, .block.task { padding-left: 17px; }
.block.end { border-top: 1px solid var(--line); margin-top: 10px; padding-top: 10px; }
.head { font-size: 15px; } .head .name { font-weight: 650; margin-right: 8px; }
.turn .name { color: var(--dim); font-weight: 400; font-size: 13px; display: inline-block; min-width: 52px; }
.plan .name, .revision .name { color: var(--plan); }
.says { font-size: 14px; white-space: pre-wrap; } .turn .says, .turn .quote { margin-left: 60px; }
.quote { border-left: 2px solid var(--line); padding-left: 10px; min-height: 1.5em;
  font: 13.5px/1.55 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre-wrap; }
.strong { font-weight: 650; } .dim { color: var(--dim); } .good { color: var(--good); } .warn { color: var(--warn); }
.bad { color: var(--bad); } .new { color: var(--accent); font-weight: 600; }
.action { font-weight: 650; color: var(--accent); }
@media (max-width: 640px) { main { padding: 18px 12px 40px; } h1 { font-size: 23px; }
  .tiles { grid-template-columns: 1fr 1fr; } .tile { padding: 10px 12px; } .tile b { font-size: 18px; }
  .turn .says, .turn .quote { margin-left: 0; }
  .story { padding: 2px 10px 12px; } .card { padding: 4px 8px; } .picture { padding: 6px; }
  .panels th, .panels td { padding: 6px 4px; font-size: 13px; } .panels td.part { padding-left: 14px; }
  .stack tr.head { display: none; } .stack tr { display: block; border-bottom: 1px solid var(--line); padding: 7px 0; }
  .stack tr:last-child { border-bottom: 0; }
  .stack td { display: inline-block; border: 0; padding: 1px 14px 1px 0; white-space: normal; }
  .stack td.text { min-width: 0; font-weight: 600; } .stack td:empty { display: none; }
  .stack td.number { font-size: 14px; } .stack td.number::before { content: attr(data-head) " "; color: var(--dim); } }
</style>
</head>
<body>
<main>
<header><h1>{{ name }}</h1><p>hiplan report</p></header>
{% if tiles %}<div class="tiles">
{% for value, label in tiles %}<div class="tile"><b>{{ value }}</b><span>{{ label }}</span></div>
{% endfor %}</div>{% endif %}

{% if results.groups %}<h2>Results</h2>
{{ panels_table(results) }}
<p class="note">Success with its 95 % Wilson interval over tasks, with the decoding that was best on dev.
{%- for note in panels %} {{ note }}.{% endfor %}</p>{% endif %}

{% if gains.groups %}<h3>Gain</h3>
{{ panels_table(gains) }}
<p class="note">Success after the last stage minus success after the first on the same tasks, in percentage points, with
95 % intervals over tasks. The intervals do not cover the variation over training seeds. An interval of width 0 means
that the difference was the same for every task. If there are two decodings, each was the best on dev for its
stage.</p>{% endif %}

{% if curves %}<h2>Training</h2>
{{ picture(curves, "Training curves") }}
<p class="note">The shading marks the stages. Faint lines are single iterations, strong lines moving averages, and bars
95 % intervals.</p>
{% endif %}

{% if diagnostics %}<h2>{{ diagnostics.title }}</h2>
{% if diagnostics.about %}<p class="note">{{ diagnostics.about }}</p>{% endif %}
{% for section in diagnostics.sections %}<h3>{{ section.title }}</h3>
{% if section.rows %}<div class="card" tabindex="0"><table class="stack">
<tr class="head">{% for text, numeric in section.head -%}
<th{% if numeric %} class="num"{% endif %}>{{ text }}</th>{% endfor %}</tr>
{% for row in section.rows %}<tr>
{%- for text, numeric in row %}
<td class="{{ 'number' if numeric else 'text' }}" data-head="{{ section.head[loop.index0][0] }}">{{ text }}</td>
{%- endfor %}</tr>
{% endfor %}</table></div>{% endif %}
{% if section.picture %}{{ picture(section.picture, section.title) }}{% endif %}
{% if section.note %}<p class="note">{{ section.note }}</p>{% endif %}
{% endfor %}{% endif %}

{% if episodes %}<h2>Episodes</h2>
{% if chosen %}<p class="note">{{ chosen }}</p>{% endif %}
{% for episode in episodes %}<details{% if loop.first %} open{% endif %}>
<summary><b>{{ episode.title }}</b>
<span class="badge {{ 'good' if episode.success else 'bad' }}">
{{- 'success' if episode.success else 'no success' }}</span>
<span class="dim">{{ episode.about }}</span></summary>
<div class="story">
{% if episode.picture %}{{ picture(episode.picture, "The plans of this episode") }}
<p class="note">Each plan with the status of its steps when it was replaced. Arrows lead from a step to the steps that
depend on it.</p>{% endif %}
{% for block in episode.blocks %}<div class="block {{ block.kind }}">
<div class="head"><span class="name">{{ block.title }}</span>{{ spans(block.about) }}</div>
{% for line in block.lines %}<div class="{{ 'quote' if line.quote else 'says' }}">{{ spans(line.pieces) }}</div>
{% endfor %}</div>
{% endfor %}</div></details>
{% endfor %}
{% if total > episodes | length %}<p class="note">The first {{ episodes | length }} of {{ total }};
<code>hiplan inspect</code> shows all.</p>{% endif %}{% endif %}

{% if facts %}<h2>To reproduce this run</h2>
<div class="card" tabindex="0"><table>
{% for label, value in facts %}<tr><td class="dim text">{{ label }}</td><td class="value">{{ value }}</td></tr>
{% endfor %}</table></div>{% endif %}

{% if config %}<h2>Configuration</h2>
<div class="card" tabindex="0"><pre>{{ config }}</pre></div>{% endif %}
</main>
</body>
</html>
"""
