// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// The page: the title, the rows and the panels of one dashboard, all rows expanded.

import { createTheme, dateTime, dateTimeFormat, EventBusSrv, ThemeContext } from '@grafana/data';
import { GlobalStyles, PanelChrome, PanelContextProvider } from '@grafana/ui';
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { framesOf } from './frames.js';
import { defaultsOf, isEmpty, Visualization } from './panels.jsx';

const columns = 24, cell = 30, gap = 8, margin = 16; // px, as in Grafana
const pageWidth = 1400;

// place returns the panels with their position when all rows are expanded.
function place(panels) {
  const placed = [];
  let shift = 0;
  const byPosition = [...panels].sort((a, b) => a.gridPos.y - b.gridPos.y || a.gridPos.x - b.gridPos.x);
  for (const panel of byPosition) {
    placed.push({ panel, ...panel.gridPos, y: panel.gridPos.y + shift });
    const inside = panel.collapsed ? panel.panels ?? [] : [];
    if (!inside.length) continue;
    const top = Math.min(...inside.map((p) => p.gridPos.y));
    const bottom = Math.max(...inside.map((p) => p.gridPos.y + p.gridPos.h));
    for (const p of inside) placed.push({ panel: p, ...p.gridPos, y: panel.gridPos.y + 1 + shift + p.gridPos.y - top });
    shift += bottom - top;
  }
  return placed;
}

function Panel({ view, panel, width, height, settled }) {
  const [state, setState] = useState({ name: 'loading' });
  useEffect(() => {
    (async () => {
      try {
        const frames = panel.type === 'text' ? [] : await framesOf(view, panel);
        setState({ name: panel.type !== 'text' && isEmpty(frames) ? 'empty' : 'data', frames });
      } catch (error) {
        setState({ name: 'error', message: String(error.message ?? error) });
      }
    })();
  }, []);
  useEffect(() => { if (state.name !== 'loading') settled(); }, [state]);
  const context = { eventsScope: String(panel.id), eventBus: new EventBusSrv() };
  return (
    <div data-panel={panel.title ?? panel.type} data-state={state.name} data-message={state.message}>
      <PanelContextProvider value={context}>
        <PanelChrome title={panel.title} description={panel.description} width={width} height={height}
          padding={panel.type === 'table' ? 'none' : 'md'} displayMode={panel.transparent ? 'transparent' : 'default'}>
          {(w, h) => {
            if (state.name === 'error') return <pre style={{ whiteSpace: 'pre-wrap', fontSize: 11 }}>{state.message}</pre>;
            return state.frames ? <Visualization view={view} panel={panel} frames={state.frames} width={w} height={h} /> : null;
          }}
        </PanelChrome>
      </PanelContextProvider>
    </div>
  );
}

function Dashboard({ view, theme }) {
  const placed = place(view.dashboard.panels);
  const unit = (pageWidth - 2 * margin + gap) / columns;
  const total = placed.filter(({ panel }) => panel.type !== 'row').length;
  const [count, setCount] = useState(0);
  useEffect(() => {
    if (count < total) return;
    // uPlot draws in a frame of its own.
    requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => { document.body.dataset.ready = 'yes'; }, 300)));
  }, [count]);
  const bottom = Math.max(...placed.map((p) => p.y + p.h));
  const variables = Object.entries(view.variables ?? {});
  const time = (t) => dateTimeFormat(t * 1000, { timeZone: 'utc', format: 'YYYY-MM-DD HH:mm' });
  return (
    <div style={{ padding: margin, background: theme.colors.background.canvas, color: theme.colors.text.primary, width: pageWidth }}>
      <div style={{ display: 'flex', alignItems: 'baseline', gap: 16, marginBottom: 8 }}>
        <h3 style={{ margin: 0 }}>{view.dashboard.title}</h3>
        <span style={{ color: theme.colors.text.secondary, flex: 1 }}>{variables.map(([k, v]) => `${k}: ${v}`).join('   ')}</span>
        <span style={{ color: theme.colors.text.secondary }}>{time(view.from)} to {time(view.to)} UTC</span>
      </div>
      <div style={{ position: 'relative', height: bottom * (cell + gap) }}>
        {placed.map(({ panel, x, y, w, h }) => (
          <div key={`${panel.id}/${y}/${x}`} style={{ position: 'absolute', left: x * unit, top: y * (cell + gap) }}>
            {panel.type === 'row'
              ? <h5 style={{ margin: 0, lineHeight: `${cell}px` }}>⌄ {panel.title}</h5>
              : <Panel view={view} panel={defaultsOf(panel)} width={w * unit - gap} height={h * (cell + gap) - gap} settled={() => setCount((n) => n + 1)} />}
          </div>
        ))}
      </div>
    </div>
  );
}

const view = await (await fetch('/view')).json();
view.timeRange = { from: dateTime(view.from * 1000), to: dateTime(view.to * 1000), raw: { from: dateTime(view.from * 1000), to: dateTime(view.to * 1000) } };
const theme = createTheme({ colors: { mode: view.theme || 'light' } });
document.title = view.dashboard.title;
createRoot(document.getElementById('root')).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <Dashboard view={view} theme={theme} />
  </ThemeContext.Provider>);
