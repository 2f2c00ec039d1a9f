// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Types of panels that @grafana/ui has no component for, drawn as SVG with Grafana's
// colors, formats and legends.

import { FieldType, formattedValueToString, getFieldDisplayName, getFieldSeriesColor, dateTimeFormat } from '@grafana/data';
import { VizLayout, VizLegend } from '@grafana/ui';

const font = 12;
const textWidth = (text) => text.length * font * 0.58; // the mean width of a character
const clip = (text, width) => (textWidth(text) <= width ? text : `${text.slice(0, Math.max(0, Math.floor(width / (font * 0.58)) - 1))}…`);

const Label = ({ theme, children, ...rest }) => <text fontSize={font} fill={theme.colors.text.primary} {...rest}>{children}</text>;

function WithLegend({ legend, items, width, height, children }) {
  const show = legend.showLegend && items.length > 0;
  const node = show ? <VizLayout.Legend placement={legend.placement}><VizLegend placement={legend.placement} displayMode={legend.displayMode} items={items} /></VizLayout.Legend> : null;
  return <VizLayout width={width} height={height} legend={node}>{children}</VizLayout>;
}

const valueFields = (data) => data.flatMap((frame) => frame.fields.filter((f) => f.type !== FieldType.time).map((field) => ({ frame, field })));

// ticks returns about n round times.
function ticks(from, to, n) {
  const minutes = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080];
  const step = 60_000 * (minutes.find((m) => (to - from) / (m * 60_000) <= n) ?? 43_200);
  const result = [];
  for (let t = Math.ceil(from / step) * step; t < to; t += step) result.push(t);
  return { step, result };
}

function TimeAxis({ from, to, x, width, y, theme }) {
  const { step, result } = ticks(from, to, Math.max(2, Math.floor(width / 110)));
  const format = step >= 86_400_000 ? 'MM/DD' : 'HH:mm';
  return result.map((t) => {
    const at = x + (width * (t - from)) / (to - from);
    return <Label key={t} theme={theme} x={at} y={y} textAnchor="middle">{dateTimeFormat(t, { timeZone: 'utc', format })}</Label>;
  });
}

// spans returns the periods in which a series has one value. Missing samples end a span.
function spans(frame, field, to, merge) {
  const time = frame.fields.find((f) => f.type === FieldType.time);
  const step = time.config.interval ?? Infinity;
  const result = [];
  frame.fields.length && field.values.forEach((value, i) => {
    if (value === null || value === undefined || Number.isNaN(value)) return;
    const begin = time.values[i], end = Math.min(time.values[i + 1] ?? begin + Math.min(step, to - begin), begin + 1.5 * step, to);
    const last = result.at(-1);
    if (merge && last && last.end >= begin && field.display(last.value).text === field.display(value).text) last.end = end;
    else result.push({ value, begin, end });
  });
  return result;
}

export function StateTimeline({ view, data, options, width, height, theme }) {
  const from = view.from * 1000, to = view.to * 1000;
  const rows = valueFields(data).map(({ frame, field }) => ({ name: getFieldDisplayName(field, frame, data), field, spans: spans(frame, field, to, options.mergeValues) }));
  const states = new Map();
  for (const { field, spans } of rows) {
    for (const { value } of spans) {
      const display = field.display(value);
      states.set(`${display.text}|${display.color}`, { label: formattedValueToString(display), color: display.color, yAxis: 1 });
    }
  }
  return (
    <WithLegend legend={options.legend} items={[...states.values()]} width={width} height={height}>
      {(w, h) => {
        const axis = 20, left = Math.min(0.3 * w, Math.max(...rows.map((r) => textWidth(r.name))) + 10);
        const line = (h - axis) / rows.length, bar = line * (options.rowHeight ?? 0.9);
        return (
          <svg width={w} height={h}>
            {rows.map((row, i) => (
              <g key={i}>
                {line >= font && <Label theme={theme} x={left - 8} y={i * line + line / 2 + 4} textAnchor="end">{clip(row.name, left - 8)}</Label>}
                {row.spans.map((s, k) => {
                  const x = left + ((w - left) * (s.begin - from)) / (to - from), length = ((w - left) * (s.end - s.begin)) / (to - from);
                  const display = row.field.display(s.value), text = formattedValueToString(display);
                  const fits = options.showValue !== 'never' && bar >= font + 2 && (options.showValue === 'always' || textWidth(text) + 6 < length);
                  return (
                    <g key={k}>
                      <rect x={x} y={i * line + (line - bar) / 2} width={Math.max(0.5, length)} height={bar} fill={display.color} fillOpacity={(row.field.config.custom?.fillOpacity ?? 70) / 100} />
                      {fits && <Label theme={theme} x={x + length / 2} y={i * line + line / 2 + 4} textAnchor="middle">{text}</Label>}
                    </g>
                  );
                })}
              </g>
            ))}
            <TimeAxis from={from} to={to} x={left} width={w - left} y={h - 4} theme={theme} />
          </svg>
        );
      }}
    </WithLegend>
  );
}

const point = (cx, cy, r, angle) => `${cx + r * Math.cos(angle)} ${cy + r * Math.sin(angle)}`;

// ring returns the outline of a part of a ring; angles are in radians.
function ring(cx, cy, outer, inner, begin, end) {
  const large = end - begin > Math.PI ? 1 : 0;
  return `M ${point(cx, cy, outer, begin)} A ${outer} ${outer} 0 ${large} 1 ${point(cx, cy, outer, end)} ` +
    `L ${point(cx, cy, inner, end)} A ${inner} ${inner} 0 ${large} 0 ${point(cx, cy, inner, begin)} Z`;
}

export function Gauge({ value, named, width, height, theme }) {
  const { display, field } = value;
  const min = field.min ?? 0, max = field.max ?? 100;
  const title = named ? font + 8 : 0;
  const r = Math.max(10, Math.min(width / 2 - 4, (height - title) / 1.6 - 4)), cx = width / 2, cy = r + 4;
  const begin = Math.PI * 0.9, sweep = Math.PI * 1.2;
  const at = (v) => begin + sweep * Math.min(1, Math.max(0, (v - min) / (max - min || 1)));
  const text = formattedValueToString(display);
  return (
    <svg width={width} height={height}>
      <path d={ring(cx, cy, r, r * 0.75, begin, begin + sweep)} fill={theme.colors.background.secondary} />
      {Number.isFinite(display.numeric) && <path d={ring(cx, cy, r, r * 0.75, begin, at(display.numeric))} fill={display.color} />}
      <text x={cx} y={cy + r * 0.15} textAnchor="middle" fontSize={Math.min(r * 0.45, (r * 2.2) / Math.max(3, text.length))} fontWeight={500} fill={display.color}>{text}</text>
      {named && <Label theme={theme} x={cx} y={height - 6} textAnchor="middle">{clip(display.title ?? '', width)}</Label>}
    </svg>
  );
}

export function PieChart({ values, options, width, height, theme }) {
  const parts = values.map((v) => v.display).filter((d) => d.numeric > 0);
  const sum = parts.reduce((total, d) => total + d.numeric, 0);
  const shows = options.legend.values ?? [];
  const items = values.map(({ display }) => ({ label: display.title ?? '', color: display.color, yAxis: 1, getDisplayValues: () => [
    ...(shows.includes('value') ? [{ ...display, title: 'Value' }] : []),
    ...(shows.includes('percent') ? [{ numeric: display.numeric / sum, text: `${Math.round((100 * display.numeric) / sum)}%`, title: 'Percent' }] : []),
  ] }));
  return (
    <WithLegend legend={options.legend} items={items} width={width} height={height}>
      {(w, h) => {
        const r = Math.max(5, Math.min(w, h) / 2 - 6);
        let angle = -Math.PI / 2;
        return (
          <svg width={w} height={h}>
            {parts.map((d, i) => {
              const begin = angle, share = d.numeric / sum;
              angle += Math.min(share, 0.9999) * 2 * Math.PI;
              const middle = (begin + angle) / 2, hole = options.pieType === 'donut' ? r * 0.6 : 0;
              return (
                <g key={i}>
                  <path d={ring(w / 2, h / 2, r, hole, begin, angle)} fill={d.color} stroke={theme.colors.background.primary} />
                  {(options.displayLabels ?? []).length > 0 && share > 0.05 && (
                    <text x={w / 2 + r * 0.75 * Math.cos(middle)} y={h / 2 + r * 0.75 * Math.sin(middle) + 4} fontSize={font} textAnchor="middle" fill={theme.colors.getContrastText(d.color)}>
                      {options.displayLabels.map((l) => ({ name: d.title, value: formattedValueToString(d), percent: `${Math.round(share * 100)}%` })[l]).join(' ')}
                    </text>
                  )}
                </g>
              );
            })}
          </svg>
        );
      }}
    </WithLegend>
  );
}

// BarChart draws the number fields of the first frame as groups of bars, one per row.
export function BarChart({ panel, data, options, width, height, theme }) {
  const frame = data[0];
  const names = frame.fields.find((f) => (options.xField ? getFieldDisplayName(f, frame, data) === options.xField : f.type === FieldType.string))
    ?? frame.fields.find((f) => f.type !== FieldType.number);
  const fields = frame.fields.filter((f) => f.type === FieldType.number && f !== names && !f.config.custom?.hideFrom?.viz);
  const stacked = options.stacking && options.stacking !== 'none';
  const flat = options.orientation === 'horizontal' || (options.orientation === 'auto' && height > width);
  const items = fields.map((f) => ({ label: getFieldDisplayName(f, frame, data), color: getFieldSeriesColor(f, theme).color, yAxis: 1 }));
  const totals = frame.length ? [...Array(frame.length).keys()].map((i) => {
    const v = fields.map((f) => f.values[i] ?? 0);
    return stacked ? v.reduce((a, b) => a + b, 0) : Math.max(...v);
  }) : [0];
  const max = panel.fieldConfig.defaults.max ?? (Math.max(...totals) || 1);
  return (
    <WithLegend legend={options.legend} items={items} width={width} height={height}>
      {(w, h) => {
        const label = names ? [...Array(frame.length).keys()].map((i) => formattedValueToString(names.display(names.values[i]))) : [];
        const margin = flat ? Math.min(0.35 * w, Math.max(...label.map(textWidth), 20) + 10) : 20;
        const band = (flat ? h : w) / frame.length, extent = (flat ? w - margin - 60 : h - margin - 16);
        return (
          <svg width={w} height={h}>
            {label.map((text, i) => {
              let base = 0;
              return (
                <g key={i}>
                  {flat ? <Label theme={theme} x={margin - 8} y={i * band + band / 2 + 4} textAnchor="end">{clip(text, margin - 8)}</Label>
                    : <Label theme={theme} x={i * band + band / 2} y={h - 5} textAnchor="middle">{clip(text, band)}</Label>}
                  {fields.map((f, k) => {
                    const value = f.values[i] ?? 0, length = (extent * value) / max, thick = (band * 0.8) / (stacked ? 1 : fields.length);
                    const across = i * band + band * 0.1 + (stacked ? 0 : k * thick), along = stacked ? base : 0;
                    base += length;
                    const color = getFieldSeriesColor(f, theme).color, shown = formattedValueToString(f.display(value));
                    return flat
                      ? <g key={k}><rect x={margin + along} y={across} width={Math.max(0, length)} height={thick} fill={color} fillOpacity={0.8} />
                        {!stacked && options.showValue !== 'never' && thick >= 9 && <Label theme={theme} x={margin + length + 4} y={across + thick / 2 + 4}>{shown}</Label>}</g>
                      : <g key={k}><rect x={across} y={h - margin - along - length} width={thick} height={Math.max(0, length)} fill={color} fillOpacity={0.8} />
                        {!stacked && options.showValue !== 'never' && textWidth(shown) < band && <Label theme={theme} x={across + thick / 2} y={h - margin - length - 4} textAnchor="middle">{shown}</Label>}</g>;
                  })}
                </g>
              );
            })}
          </svg>
        );
      }}
    </WithLegend>
  );
}
