"""A dist_sync key-value store over MXNet's parameter servers: every worker pushes, and reads the sum of all."""

import json
import os

import mxnet as mx

store = mx.kv.create('dist_sync')
shape = (2, 3)
store.init('w', mx.nd.zeros(shape))
store.push('w', mx.nd.ones(shape) * (store.rank + 1))
value = mx.nd.zeros(shape)
store.pull('w', out=value)
value.wait_to_read()
print('RESULT ' + json.dumps({'rank': store.rank, 'workers': store.num_workers, 'sum': float(value.asnumpy()[0, 0]),
                              'host': os.environ['SM_CURRENT_HOST']}), flush=True)
