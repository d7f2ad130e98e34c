"""Relays on h2, and the rules that divert h1's connections to them."""

import contextlib
import os
import shlex
import subprocess
import tempfile
import time

from lab import H2_LEFT, H3, LabError

PORT = 9091
ADMIN = '127.0.0.1:9092'
SERVER_PORT = 5201  # and the two after it

HAPROXY = '''global
  maxconn 2000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen relay
  bind 0.0.0.0:{port} {transparent}
  option splice-request
  option splice-response
  server origin 0.0.0.0 {source}
'''


def status(pid):
    """The memory of a process in bytes: now, at most, and the part of it that is no file. It may have ended: zeros."""
    found = {'VmRSS': 0, 'VmHWM': 0, 'RssAnon': 0}
    try:
        with open(f'/proc/{pid}/status', encoding='ascii') as lines:
            for line in lines:
                name, _, value = line.partition(':')
                if name in found:
                    found[name] = int(value.split()[0]) * 1024
    except OSError:
        pass
    return found


def listens(pid, port):
    """Says whether somebody listens on the port, in the network of the process."""
    for table in ('tcp', 'tcp6'):
        try:
            with open(f'/proc/{pid}/net/{table}', encoding='ascii') as lines:
                for line in lines:
                    words = line.split()
                    if len(words) > 3 and words[3] == '0A' and int(words[1].rpartition(':')[2], 16) == port:
                        return True
        except OSError:
            pass
    return False


def wait_listen(process, pid, port, what):
    """Returns when somebody listens. Pid is of any process of the host."""
    for _ in range(1200):
        if listens(pid, port):
            return
        if process.poll() is not None:
            said = process.stderr.read().strip() if process.stderr else ''
            raise LabError(f'{what} ended before it listened on port {port}: {said or process.returncode}')
        time.sleep(0.05)
    raise LabError(f'{what} does not listen on port {port} after a minute')


def end(process, grace=5):
    """Ends a process kindly, then in any event."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()


def command(name, args, folder, admin):
    """What to run on h2."""
    if name in ('tprelay', 'tprelay-no-flow-control'):
        line = [args.tprelay, 'run', '--mode', args.mode, '--listen', f':{PORT}', '--drain-timeout', '100ms',
                '--high-watermark', str(args.high_watermark), '--log-level', 'error']
        if admin:
            line += ['--admin', ADMIN]
        if name != 'tprelay':
            line += ['--no-flow-control']
        return line + shlex.split(args.relay_flags)
    if name == 'haproxy':
        path = os.path.join(folder, 'haproxy.cfg')
        tproxy = args.mode == 'tproxy'
        with open(path, 'w', encoding='ascii') as config:
            config.write(HAPROXY.format(port=PORT, transparent='transparent' if tproxy else '',
                                        source='source 0.0.0.0 usesrc client' if tproxy else ''))
        return ['haproxy', '-db', '-f', path]
    return ['sh', '-c', 'exec ' + name.format(port=PORT, server=f'{H3}:{SERVER_PORT}', mode=args.mode)]


def rules(h2, args, folder, action):
    """Applies the rules, or takes them down."""
    line = [args.tprelay, 'rules', action, '--state', os.path.join(folder, 'rules')]
    if action == 'apply':
        listen = f'127.0.0.1:{PORT}' if args.mode == 'tproxy' else f'{H2_LEFT}:{PORT}'
        line += ['--mode', args.mode, '--listen', listen, '--in', 'h2-eth0', '--dport', f'{SERVER_PORT}-{SERVER_PORT + 2}',
                 '--on-down', 'closed', '--set-sysctls']
    process = h2.popen(line, text=True)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        end(process)
    if process.returncode != 0:
        raise LabError(f'rules {action}: {(err or out).strip()}')


@contextlib.contextmanager
def relay(h2, name, args, admin=False):
    """Runs the relay on h2, with rules; gives its process, or None where there is to be none."""
    if name == 'none':
        yield None
        return
    with tempfile.TemporaryDirectory(prefix='topo-') as folder:
        process = h2.popen(command(name, args, folder, admin), stdout=subprocess.DEVNULL, text=True)
        try:
            wait_listen(process, process.pid, PORT, name)
            rules(h2, args, folder, 'apply')
            try:
                yield process
            finally:
                rules(h2, args, folder, 'remove')
        finally:
            end(process)
