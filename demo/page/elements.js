// Making and changing elements. Nothing is changed that is already right, so that a screen reader's place on the page, a
// selection and the focus outlive a refresh.

export const byId = (id) => document.getElementById(id);

// el("td", "number", "12") or el("p", "", "text ", anotherElement)
export function el(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// One child of `parent` for each key, in order; made once by `make(key)`, which gives an element, and kept while its key is.
export function keyed(parent, keys, make) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const now = keys.map((key) => {
    const child = old.get(key) ?? make(key);
    child.dataset.key = key;
    return child;
  });
  if (now.length !== parent.children.length || now.some((child, i) => parent.children[i] !== child)) {
    parent.replaceChildren(...now);
  }
  return now;
}

export const whole = (number) => Math.round(number).toLocaleString("en");
