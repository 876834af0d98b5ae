// The shop in Node. Run it: node node.js [HOST:PORT]

'use strict';

const WebSocket = require('ws');
const {flipperClient} = require('js-flipper');
const {Cart, cartPlugin} = require('./cart');

flipperClient.addPlugin(cartPlugin(new Cart()));
flipperClient.start('Shop', {
  urlBase: process.argv[2] || 'localhost:8333',
  websocketFactory: (url) => new WebSocket(url, {origin: 'localhost:'}), // without an origin nobody is let in
  onError: () => {},
});
