// A plugin on js-flipper for the tests, the same in Node and in a page: tells what happens to it, and gives back
// whatever it is asked for.

'use strict';

module.exports = function probe(client, tell) {
  let connections = 0;
  client.addPlugin({
    getId: () => 'Recorder',
    runInBackground: () => true,
    onConnect(connection) {
      connections += 1;
      tell({happened: 'init', connections});
      connection.receive('give', ({value}) => value);
      connection.receive('giveLater', ({value}) => Promise.resolve(value));
      connection.receive('giveNothing', () => undefined);
      connection.receive('fail', () => {
        throw new Error('no such thing');
      });
      connection.receive('addPlugin', ({id}) => {
        client.addPlugin({getId: () => id, onConnect() {}, onDisconnect() {}});
      });
      connection.send('noted', {connections, value: null});
    },
    onDisconnect: () => tell({happened: 'deinit'}),
  });
};
