// The search takes symbols and options as they are written: `--ratio`, `masks.bernoulli(`, `key=value`. Its query language would read a dash as
// "without", and stumbles over brackets and colons. Every query passes through a worker's postMessage, as {type: 2, data: words}.
const plain = (words) => words.replace(/(^|\s)[-+]+(?=\w)/g, "$1").replace(/[()[\]{}=,:^~*`]+/g, " ").trim();
const post = window.Worker.prototype.postMessage;
window.Worker.prototype.postMessage = function (message, ...rest) {
  const query = message && message.type === 2 && typeof message.data === "string";
  return post.call(this, query ? { ...message, data: plain(message.data) } : message, ...rest);
};
