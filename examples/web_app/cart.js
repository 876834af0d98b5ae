// A cart, and the app's side of the plugin Cart. It is the same in a page and in Node.

'use strict';

const PRICES = {apple: 30, pear: 45}; // in cents

class Cart {
  items = [];
  changed = () => {};

  add(item) {
    if (!(item in PRICES)) {
      throw new Error(`there is no ${item} in this shop`); // told to the caller, word for word
    }
    this.items.push(item);
    this.changed();
    return {items: this.items.length, cents: this.items.reduce((sum, each) => sum + PRICES[each], 0)};
  }
}

function cartPlugin(cart) {
  return {
    getId: () => 'Cart', // the name that the broker's side of it has, too
    runInBackground: () => true,

    // Called when the broker starts the plugin, and again after each line that was lost.
    onConnect(connection) {
      connection.receive('add', ({item}) => cart.add(item));
      connection.receive('items', () => cart.items);
      cart.changed = () => tell(connection, 'changed', {items: cart.items});
      cart.changed();
    },

    onDisconnect() {
      cart.changed = () => {};
    },
  };
}

// Between a lost line and the next one js-flipper throws: a shop goes on without its tools.
function tell(connection, method, params) {
  try {
    connection.send(method, params);
  } catch {
    // The plugin tells all of it when it is started again.
  }
}

module.exports = {Cart, cartPlugin};
