// The shop in a page. Bundle it as the rest of your app, for example: npx esbuild page.js --bundle --outfile=bundle.js
// Leave it out of what you ship: it is for your own machine.

'use strict';

const {flipperClient} = require('js-flipper');
const {Cart, cartPlugin} = require('./cart');

const cart = new Cart();
flipperClient.addPlugin(cartPlugin(cart));
flipperClient.start('Shop', {
  urlBase: new URLSearchParams(location.search).get('broker') || 'localhost:8333',
  onError: () => {}, // nobody listens: it tries again in a second
});

for (const button of document.querySelectorAll('button')) {
  button.onclick = () => cart.add(button.textContent);
}
