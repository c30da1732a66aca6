// Keys, drag and drop, completion of learned tokens, light and dark. Sends no requests.
(() => {
  const find = (selector) => document.querySelector(selector);
  const visible = (element) => element && element.getClientRects().length > 0;
  const button = (id) => {
    const element = document.getElementById(id);
    return element && (element.matches('button') ? element : element.querySelector('button'));
  };
  const press = (id) => {
    const target = button(id);
    if (!visible(target) || target.disabled) return false;
    target.click();
    return true;
  };

  // --- light and dark: the system's choice, until the visitor makes one
  const choose = (dark) => {
    document.body.classList.toggle('dark', dark);
    document.documentElement.style.colorScheme = dark ? 'dark' : 'light';
  };
  const remembered = () => {
    try { return localStorage.getItem('diffusekit.shade'); } catch { return null; }
  };
  const system = matchMedia('(prefers-color-scheme: dark)');
  const settle = () => choose(remembered() ? remembered() === 'dark' : system.matches);
  system.addEventListener('change', settle);
  document.addEventListener('click', (event) => {
    if (!event.target.closest('#shade')) return;
    const dark = !document.body.classList.contains('dark');
    choose(dark);
    try { localStorage.setItem('diffusekit.shade', dark ? 'dark' : 'light'); } catch { /* private */ }
  });
  let settled = 0;
  const first = setInterval(() => {
    settle();
    if (find('#shade') && ++settled > 4) clearInterval(first);
  }, 100);

  // --- completion of learned tokens in the prompts
  const boxes = '#prompt textarea, #negative textarea, #negative input';
  const list = document.createElement('ul');
  list.id = 'completions';
  list.setAttribute('role', 'listbox');
  list.setAttribute('aria-label', 'Learned tokens');
  list.hidden = true;
  let box = null, start = 0, choice = 0;
  const words = () => {
    const holder = find('#words [data-words]');
    return holder ? JSON.parse(holder.dataset.words) : [];
  };
  const hide = () => {
    list.hidden = true;
    if (box) box.removeAttribute('aria-activedescendant');
  };
  const mark = () => [...list.children].forEach((item, i) => {
    item.setAttribute('aria-selected', i === choice);
    if (i === choice && box) box.setAttribute('aria-activedescendant', item.id);
  });
  const complete = (word) => {
    const end = box.selectionStart, text = box.value, put = `<${word}>`;
    const proto = box.matches('textarea') ? HTMLTextAreaElement : HTMLInputElement;
    const after = text.slice(end).replace(/^>/, '');
    Object.getOwnPropertyDescriptor(proto.prototype, 'value').set.call(
      box, text.slice(0, start) + put + after);
    box.dispatchEvent(new Event('input', { bubbles: true }));
    box.setSelectionRange(start + put.length, start + put.length);
    box.focus();
    hide();
  };
  const offer = (target) => {
    box = target;
    const before = box.value.slice(0, box.selectionStart);
    const typed = /(?:^|[\s,(])(<?)([\w-]*)$/.exec(before);
    const stem = typed ? typed[2].toLowerCase() : '';
    if (!typed || (!typed[1] && stem.length < 2)) return hide();
    const known = words().filter((word) => word.toLowerCase().startsWith(stem) ||
      (typed[1] && word.toLowerCase().includes(stem))).slice(0, 8);
    if (!known.length || (known.length === 1 && typed[2] === known[0] && !typed[1])) return hide();
    start = before.length - typed[1].length - typed[2].length;
    choice = 0;
    list.replaceChildren(...known.map((word, i) => {
      const item = document.createElement('li');
      item.id = `completion-${i}`;
      item.setAttribute('role', 'option');
      item.textContent = `<${word}>`;
      item.addEventListener('mousedown', (event) => { event.preventDefault(); complete(word); });
      item.dataset.word = word;
      return item;
    }));
    const place = box.getBoundingClientRect();
    list.style.left = `${place.left + scrollX}px`;
    list.style.top = `${place.bottom + scrollY + 2}px`;
    list.style.maxWidth = `${place.width}px`;
    list.hidden = false;
    mark();
  };
  document.addEventListener('input', (event) => {
    if (event.target.matches(boxes) && event.isTrusted) offer(event.target);
  });
  document.addEventListener('focusout', (event) => { if (event.target === box) setTimeout(hide, 150); });

  // --- keys
  const completing = (event) => {
    if (list.hidden || event.target !== box) return false;
    const count = list.children.length;
    if (event.key === 'ArrowDown') choice = (choice + 1) % count;
    else if (event.key === 'ArrowUp') choice = (choice + count - 1) % count;
    else if (event.key === 'Tab' || (event.key === 'Enter' && !event.ctrlKey && !event.metaKey))
      complete(list.children[choice].dataset.word);
    else if (event.key === 'Escape') hide();
    else return false;
    if (!list.hidden) mark();
    return true;
  };
  const steps = (thumb) => {
    const all = [...thumb.parentElement.children], top = all[0].offsetTop;
    const columns = all.findIndex((other) => other.offsetTop > top);
    const row = columns < 0 ? all.length : columns;
    return { all, at: all.indexOf(thumb), row };
  };
  const walking = (event) => {
    const thumb = event.target.closest && event.target.closest('.thumb');
    if (!thumb) return false;
    const { all, at, row } = steps(thumb);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + row, ArrowUp: at - row,
      Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined) {
      if (event.key === 'Delete' && thumb.getAttribute('aria-current')) return press('delete');
      return false;
    }
    const next = all[to];
    if (next) { next.focus(); next.click(); }
    return true;
  };
  document.addEventListener('click', (event) => {
    const thumb = event.target.closest('.thumb');
    if (!thumb) return;
    document.querySelectorAll('.thumb[aria-current]').forEach((t) => t.removeAttribute('aria-current'));
    thumb.setAttribute('aria-current', 'true');
    if (innerWidth < 832 && event.detail) // on a phone the image opens above the grid
      setTimeout(() => find('#album').scrollIntoView({ block: 'start', behavior: 'smooth' }), 300);
  });
  document.addEventListener('keydown', (event) => {
    const used = completing(event) || walking(event) ||
      (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && visible(find('#prompt')) && press('go')) ||
      (event.key === 'Escape' && press('stop'));
    if (used) { event.preventDefault(); event.stopPropagation(); }
  }, true);

  // --- an image dropped anywhere restores its settings
  const carries = (event) => event.dataTransfer && [...event.dataTransfer.types].includes('Files');
  const taken = (event) => event.target.closest && event.target.closest('[data-takes-files], .upload-container, #start-editor');
  let depth = 0;
  const over = (on) => document.body.classList.toggle('dropping', on);
  document.addEventListener('dragenter', (event) => { if (carries(event)) { depth += 1; over(true); } });
  document.addEventListener('dragleave', (event) => {
    if (carries(event) && --depth <= 0) { depth = 0; over(false); }
  });
  document.addEventListener('dragover', (event) => { if (carries(event)) event.preventDefault(); });
  document.addEventListener('drop', (event) => {
    depth = 0;
    over(false);
    if (!carries(event) || taken(event)) return;
    event.preventDefault();
    event.stopPropagation();
    const holder = document.getElementById('drop');
    const input = holder && (holder.matches('input') ? holder :
      holder.querySelector('input[type=file]') || holder.parentElement.querySelector('input[type=file]'));
    if (!input || !event.dataTransfer.files.length) return;
    const one = new DataTransfer();
    one.items.add(event.dataTransfer.files[0]);
    input.files = one.files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
    const tab = find('#tab-generate-button');
    if (tab) tab.click();
  }, true);

  document.addEventListener('DOMContentLoaded', () => document.body.append(list));
  if (document.body) document.body.append(list);
})();
