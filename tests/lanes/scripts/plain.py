"""One process a host: says what it sees and leaves a file of its own."""

import json
import os

channels = {name: sorted(os.listdir(os.environ['SM_CHANNEL_' + name.upper()]))
            for name in json.loads(os.environ.get('SM_CHANNELS', '[]')) if name not in ('code', 'sm_drivers')}
host = os.environ['SM_CURRENT_HOST']
with open(os.path.join(os.environ['SM_MODEL_DIR'], host + '.txt'), 'w') as file:
    file.write(host)
print('RESULT ' + json.dumps({'host': host, 'hosts': len(json.loads(os.environ['SM_HOSTS'])), 'channels': channels,
                              'group': os.environ.get('SM_CURRENT_INSTANCE_GROUP')}), flush=True)
