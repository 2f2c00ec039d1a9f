(() => {
  'use strict';
  const pause = Number(document.body.dataset.refresh) * 1000;
  const offline = document.getElementById('offline');
  let loaded = new Date();
  async function refresh() {
    // Hidden pages cost nothing. A selection would be lost.
    if (document.hidden || !getSelection().isCollapsed) return;
    try {
      const answer = await fetch(location.pathname, {cache: 'no-store', signal: AbortSignal.timeout(10000)});
      if (!answer.ok) throw new Error('HTTP ' + answer.status);
      const next = new DOMParser().parseFromString(await answer.text(), 'text/html');
      const main = next.querySelector('main');
      if (!main) throw new Error('not a status page');
      for (const now of main.querySelectorAll('details[id]')) {
        const before = document.getElementById(now.id);
        if (before) now.open = before.open;
      }
      const focused = document.activeElement.closest('details[id]');
      document.querySelector('main').replaceWith(main);
      if (focused) document.getElementById(focused.id)?.querySelector('summary').focus({preventScroll: true});
      document.title = next.title;
      loaded = new Date();
      offline.hidden = true;
    } catch (error) {
      offline.textContent = 'The exporter does not answer (' + error.message + '). This page is of ' + loaded.toLocaleTimeString() + '.';
      offline.hidden = false;
    }
  }
  (async () => {
    for (;;) {
      await new Promise(done => setTimeout(done, pause));
      await refresh();
    }
  })();
})();
