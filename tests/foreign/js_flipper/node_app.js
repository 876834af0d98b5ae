// js-flipper in Node, as its guide says: `ws` for the sockets, and an Origin that the server lets in.
//
// Usage: node node_app.js PORT ORIGIN. Tells on stdout, one JSON object a line, what happens.

'use strict';

const WebSocket = require('ws');
const {flipperClient} = require('js-flipper');
const probe = require('./probe');

const [port, origin] = process.argv.slice(2);
const tell = (what) => process.stdout.write(JSON.stringify(what) + '\n');

probe(flipperClient, tell);
flipperClient
  .start('Node probe', {
    urlBase: `localhost:${port}`,
    websocketFactory: (url) => new WebSocket(url, origin ? {origin} : {}),
    onError: (error) => tell({happened: 'error', text: error.message}),
  })
  .then(() => tell({happened: 'started'}));
