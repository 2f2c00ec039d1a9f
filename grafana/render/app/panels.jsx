// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// The types of panels. Grafana's panel plugins are not published as packages, so this file
// connects panels to the components of @grafana/ui. drawings.jsx has the types that
// @grafana/ui has no component for.

import { FieldType, getDisplayValueAlignmentFactors, getFieldDisplayValues, renderMarkdown, VizOrientation } from '@grafana/data';
import { BarGauge, BigValue, TimeSeries, useTheme2, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { BarChart, Gauge, PieChart, StateTimeline } from './drawings.jsx';
import { style } from './frames.js';

const palette = { mode: 'palette-classic' }, byThreshold = { mode: 'thresholds' };
const lines = {
  drawStyle: 'line', lineWidth: 1, fillOpacity: 0, gradientMode: 'none', showPoints: 'auto', pointSize: 5, axisPlacement: 'auto',
  scaleDistribution: { type: 'linear' }, hideFrom: { tooltip: false, viz: false, legend: false }, spanNulls: false,
  stacking: { mode: 'none', group: 'A' }, thresholdsStyle: { mode: 'off' },
};
const reduce = { calcs: ['lastNotNull'], fields: '', values: false };
const legend = { showLegend: true, displayMode: 'list', placement: 'bottom', calcs: [] };

// types has the component, the color mode and the options that Grafana's plugins set.
const types = {
  timeseries: { draw: Lines, color: palette, custom: lines, options: { legend } },
  stat: { draw: Stat, color: byThreshold, options: { reduceOptions: reduce, colorMode: 'value', graphMode: 'area', textMode: 'auto', justifyMode: 'auto', orientation: 'auto', wideLayout: true } },
  bargauge: { draw: Bars, color: byThreshold, options: { reduceOptions: reduce, displayMode: 'gradient', orientation: 'auto', showUnfilled: true, valueMode: 'color', namePlacement: 'auto' } },
  gauge: { draw: Gauges, color: byThreshold, options: { reduceOptions: reduce, orientation: 'auto', showThresholdMarkers: true } },
  table: { draw: Rows, color: byThreshold, custom: { align: 'auto', cellOptions: { type: 'auto' }, inspect: false }, options: { showHeader: true, cellHeight: 'sm' } },
  piechart: { draw: Pie, color: palette, options: { reduceOptions: reduce, pieType: 'pie', legend: { ...legend, placement: 'right' } } },
  barchart: { draw: BarChart, color: palette, custom: { fillOpacity: 80, lineWidth: 1 }, options: { legend, orientation: 'auto', showValue: 'auto' } },
  'state-timeline': { draw: StateTimeline, color: byThreshold, custom: { fillOpacity: 70, lineWidth: 0 }, options: { legend, mergeValues: true, rowHeight: 0.9, showValue: 'auto' } },
  'status-history': { draw: StateTimeline, color: byThreshold, custom: { fillOpacity: 70, lineWidth: 1 }, options: { legend, mergeValues: false, rowHeight: 0.9, showValue: 'auto' } },
  text: { draw: Text, color: byThreshold, options: { mode: 'markdown', content: '' } },
};

// defaultsOf adds the defaults of a panel's type.
export function defaultsOf(panel) {
  const type = types[panel.type];
  if (!type) return panel;
  const defaults = panel.fieldConfig?.defaults ?? {};
  const thresholds = defaults.thresholds ?? { mode: 'absolute', steps: [{ color: 'green', value: null }, { color: 'red', value: 80 }] };
  return {
    ...panel,
    options: { ...type.options, ...panel.options, ...(type.options.legend && { legend: { ...type.options.legend, ...panel.options?.legend } }),
      ...(type.options.reduceOptions && { reduceOptions: { ...type.options.reduceOptions, ...panel.options?.reduceOptions } }) },
    fieldConfig: {
      defaults: {
        color: type.color, mappings: [], ...defaults, custom: { ...type.custom, ...defaults.custom },
        thresholds: { ...thresholds, steps: thresholds.steps.map((s, i) => ({ ...s, value: i ? s.value : -Infinity })) },
      },
      overrides: (panel.fieldConfig?.overrides ?? []).map(visible),
    },
  };
}

// visible renames the option that hides a column of a table. Grafana 12.2 and later rename it
// when they load a panel.
const visible = (override) => ({ ...override, properties: override.properties.map((p) => (p.id === 'custom.hidden' ? { ...p, id: 'custom.hideFrom.viz' } : p)) });

export const isEmpty = (frames) => !frames.some((f) => f.length > 0 && f.fields.some((x) => x.type !== FieldType.time));

const replace = (text) => text; // the tests replaced the variables; the rest belongs to links

export function Visualization(props) {
  const { panel, frames, width, height } = props;
  const theme = useTheme2();
  const type = types[panel.type];
  if (!type) throw new Error(`the kit cannot draw panels of type ${panel.type}`);
  const single = ['stat', 'gauge', 'bargauge'].includes(panel.type); // show noValue in their own way
  if (panel.type !== 'text' && isEmpty(frames) && !(single && panel.fieldConfig.defaults.noValue)) {
    const text = panel.fieldConfig.defaults.noValue || 'No data';
    return <div style={{ width, height, display: 'flex', alignItems: 'center', justifyContent: 'center', color: theme.colors.text.secondary }}>{text}</div>;
  }
  const Draw = type.draw;
  return <Draw {...props} theme={theme} options={panel.options} data={style(panel, frames, theme, replace)} />;
}

function Lines({ view, data, options, width, height }) {
  return <TimeSeries frames={data} structureRev={1} width={width} height={height} timeRange={view.timeRange} timeZone="utc"
    legend={options.legend} options={options} />;
}

// valuesOf reduces each series, or each row, to the values of a panel.
function valuesOf({ panel, data, options, theme }, sparkline) {
  return getFieldDisplayValues({
    data, fieldConfig: panel.fieldConfig, reduceOptions: options.reduceOptions, replaceVariables: replace, theme, sparkline, timeZone: 'utc',
  });
}

function Repeated({ data, options, width, height, values, orientation, spacing, minWidth, children }) {
  return <VizRepeater getValues={() => values} getAlignmentFactors={getDisplayValueAlignmentFactors} source={data} width={width} height={height} renderCounter={1} itemSpacing={spacing ?? 3}
    orientation={orientation ?? (options.orientation || VizOrientation.Auto)} autoGrid minVizWidth={minWidth} renderValue={children} />;
}

function Stat(props) {
  const { options, theme } = props;
  const values = valuesOf(props, options.graphMode !== 'none');
  const text = options.textMode === 'auto' && values.length === 1 ? 'value' : options.textMode;
  return <Repeated {...props} values={values}>
    {({ value, width, height, alignmentFactors, count }) => (
      <BigValue value={value.display} count={count} sparkline={options.graphMode === 'none' ? undefined : value.sparkline} colorMode={options.colorMode}
        graphMode={options.graphMode} textMode={text} justifyMode={options.justifyMode} alignmentFactors={alignmentFactors}
        text={options.text} wideLayout={options.wideLayout} theme={theme} width={width} height={height} />
    )}
  </Repeated>;
}

function Bars(props) {
  const { options, theme } = props;
  const orientation = options.orientation === 'auto' ? (props.width > props.height ? VizOrientation.Vertical : VizOrientation.Horizontal) : options.orientation;
  return <Repeated {...props} values={valuesOf(props, false)} orientation={orientation} spacing={8}>
    {({ value, width, height, orientation, alignmentFactors, count }) => (
      <BarGauge value={count > 1 ? value.display : { ...value.display, title: undefined }} field={value.field} display={value.view?.getFieldDisplayProcessor(value.colIndex)} orientation={orientation}
        displayMode={options.displayMode} showUnfilled={options.showUnfilled} valueDisplayMode={options.valueMode} namePlacement={options.namePlacement}
        alignmentFactors={count > 1 ? alignmentFactors : undefined} text={options.text ?? {}} theme={theme} width={width} height={height} itemSpacing={8} lcdCellWidth={12} />
    )}
  </Repeated>;
}

function Gauges(props) {
  return <Repeated {...props} values={valuesOf(props, false)} spacing={16} minWidth={75}>
    {({ value, width, height, count }) => <Gauge value={value} named={count > 1} width={width} height={height} theme={props.theme} />}
  </Repeated>;
}

function Pie(props) {
  return <PieChart {...props} values={valuesOf(props, false)} />;
}

function Rows({ panel, data, options, width, height, view }) {
  return <TableNG data={data[0]} width={width} height={height} noHeader={!options.showHeader} cellHeight={options.cellHeight} sortBy={options.sortBy}
    timeRange={view.timeRange} structureRev={1} fieldConfig={panel.fieldConfig} enableVirtualization={false} frozenColumns={options.frozenColumns?.left}
    disableSanitizeHtml={false} />;
}

function Text({ options, width, height }) {
  if (options.mode === 'code') return <pre style={{ width, height }}>{options.content}</pre>;
  const html = options.mode === 'html' ? options.content : renderMarkdown(options.content);
  return <div className="markdown-html" style={{ width, height, overflow: 'hidden' }} dangerouslySetInnerHTML={{ __html: html }} />;
}
