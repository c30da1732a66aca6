"""One module per tab of the web page, with its handlers and its HTML."""
