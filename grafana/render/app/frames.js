// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// The results of Prometheus as data frames, as Grafana's Prometheus data source makes them.

import {
  applyFieldOverrides, FieldConfigOptionsRegistry, FieldType, standardFieldConfigEditorRegistry, standardTransformers,
  standardTransformersRegistry, toDataFrame, transformDataFrame,
} from '@grafana/data';
import { lastValueFrom } from 'rxjs';

standardTransformersRegistry.setInit(() =>
  [...new Map(Object.values(standardTransformers).map((t) => [t.id, t])).values()].map((t) => ({
    id: t.id, name: t.name, description: t.description, editor: () => null, imageDark: '', imageLight: '',
    transformation: () => Promise.resolve(t),
  })));

const item = (id, isCustom) => ({
  id: isCustom ? `custom.${id}` : id, path: id, name: id, isCustom, settings: {}, process: (v) => v,
  shouldApply: () => true, override: () => null, editor: () => null, getItemsCount: () => 0,
});
const standard = [
  'displayName', 'displayNameFromDS', 'description', 'unit', 'min', 'max', 'decimals', 'noValue', 'thresholds', 'mappings', 'color',
  'links', 'actions', 'fieldMinMax', 'filterable',
].map((id) => item(id, false));
standardFieldConfigEditorRegistry.setInit(() => standard);

// registryOf returns the options that a panel sets. A plugin would declare all of its own.
function registryOf(fieldConfig) {
  const custom = new Set(Object.keys(fieldConfig.defaults.custom ?? {}));
  for (const { properties } of fieldConfig.overrides) {
    for (const { id } of properties) if (id.startsWith('custom.')) custom.add(id.slice('custom.'.length));
  }
  return new FieldConfigOptionsRegistry(() => [...standard, ...[...custom].map((id) => item(id, true))]);
}

const number = (text) => ({ '+Inf': Infinity, '-Inf': -Infinity })[text] ?? Number(text);

const legend = (target, labels) => {
  if (target.legendFormat && target.legendFormat !== '__auto') {
    return target.legendFormat.replace(/\{\{\s*([^}\s]+)\s*\}\}/g, (_, label) => labels[label] ?? '');
  }
  const pairs = Object.entries(labels).filter(([k]) => k !== '__name__').map(([k, v]) => `${k}="${v}"`);
  return pairs.length ? `${labels.__name__ ?? ''}{${pairs.join(', ')}}` : labels.__name__ ?? target.expr;
};

async function result(view, target) {
  const parameters = target.instant
    ? { query: target.expr, time: view.to }
    : { query: target.expr, start: view.from, end: view.to, step: target.step };
  const path = target.instant ? 'query' : 'query_range';
  const answer = await (await fetch(`/api/v1/${path}?${new URLSearchParams(parameters)}`)).json();
  if (answer.status !== 'success') throw new Error(`query ${target.refId}: ${answer.error}: ${target.expr}`);
  return answer.data;
}

function seriesFrames(target, data) {
  if (data.resultType === 'scalar') data = { result: [{ metric: {}, value: data.result }] };
  return data.result.map((series) => {
    const values = series.values ?? [series.value];
    const { __name__, ...labels } = series.metric;
    return toDataFrame({ refId: target.refId, fields: [
      { name: 'Time', type: FieldType.time, values: values.map((v) => v[0] * 1000), config: { interval: target.step * 1000 } },
      { name: 'Value', type: FieldType.number, values: values.map((v) => number(v[1])), labels,
        config: { displayNameFromDS: legend(target, series.metric) } },
    ] });
  });
}

function tableFrame(target, data, valueName) {
  const names = [...new Set(data.result.flatMap((s) => Object.keys(s.metric)))].sort();
  const rows = data.result.flatMap((s) => (s.values ?? [s.value]).map((v) => ({ labels: s.metric, time: v[0] * 1000, value: number(v[1]) })));
  return toDataFrame({ refId: target.refId, fields: [
    { name: 'Time', type: FieldType.time, values: rows.map((r) => r.time), config: {} },
    ...names.map((n) => ({ name: n, type: FieldType.string, values: rows.map((r) => r.labels[n] ?? ''), config: { filterable: true } })),
    { name: valueName, type: FieldType.number, values: rows.map((r) => r.value), config: {} },
  ] });
}

// framesOf runs the queries of a panel and its transformations.
export async function framesOf(view, panel) {
  const targets = (panel.targets ?? []).filter((t) => !t.hide && t.expr);
  const answers = await Promise.all(targets.map((t) => result(view, t)));
  const tables = targets.filter((t, i) => t.format === 'table' && answers[i].result.length > 0).length;
  const frames = targets.flatMap((t, i) => {
    if (t.format !== 'table') return seriesFrames(t, answers[i]);
    return answers[i].result.length ? [tableFrame(t, answers[i], tables > 1 ? `Value #${t.refId}` : 'Value')] : [];
  });
  const transformations = (panel.transformations ?? []).filter((t) => !t.disabled);
  for (const { id } of transformations) {
    if (!standardTransformersRegistry.getIfExists(id)) throw new Error(`transformation ${id} is not in @grafana/data`);
  }
  if (!frames.length || !transformations.length) return frames;
  return lastValueFrom(transformDataFrame(transformations, frames, { interpolate: (s) => s }));
}

// style applies the field configuration and the overrides of a panel.
export function style(panel, frames, theme, replaceVariables) {
  const fieldConfig = panel.fieldConfig;
  return applyFieldOverrides({
    data: frames, fieldConfig, fieldConfigRegistry: registryOf(fieldConfig), replaceVariables, theme, timeZone: 'utc',
  });
}
