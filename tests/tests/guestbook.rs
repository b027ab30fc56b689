//! A manifest that was not written for this cluster: two Deployments, Services, ConfigMap, Secret, Ingress with TLS.

use meshgate_tests::{Cluster, curl, image, run, text, tls, until};

const GUESTBOOK: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: guestbook-config}
data:
  SERVICE_NAME: guestbook
---
apiVersion: v1
kind: Secret
metadata: {name: guestbook-secret}
type: Opaque
stringData:
  password: hunter2
---
apiVersion: v1
kind: Service
metadata:
  name: redis-leader
  labels: {app: redis, role: leader, tier: backend}
spec:
  ports:
  - port: 6379
    targetPort: redis-port
  selector: {app: redis, role: leader, tier: backend}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: redis-leader
  labels: {app: redis, role: leader, tier: backend}
spec:
  replicas: 1
  selector:
    matchLabels: {app: redis}
  template:
    metadata:
      labels: {app: redis, role: leader, tier: backend}
    spec:
      containers:
      - name: leader
        image: example.test/redis:6
        env:
        - {name: HTTP_PORT, value: "6379"}
        resources:
          requests: {cpu: 50m, memory: 50Mi}
        ports:
        - name: redis-port
          containerPort: 6379
---
apiVersion: v1
kind: Service
metadata:
  name: frontend
  labels: {app: guestbook, tier: frontend}
spec:
  type: NodePort
  ports:
  - port: 80
    targetPort: 3000
  selector: {app: guestbook, tier: frontend}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: frontend
spec:
  replicas: 3
  selector:
    matchLabels: {app: guestbook, tier: frontend}
  template:
    metadata:
      labels: {app: guestbook, tier: frontend}
    spec:
      containers:
      - name: php-redis
        image: example.test/guestbook:v5
        envFrom:
        - configMapRef: {name: guestbook-config}
        env:
        - name: GET_HOSTS_FROM
          value: dns
        - name: PASSWORD
          valueFrom: {secretKeyRef: {name: guestbook-secret, key: password}}
        resources:
          requests: {cpu: 50m, memory: 50Mi}
          limits: {memory: 200Mi}
        ports:
        - containerPort: 3000
        readinessProbe:
          httpGet: {path: /health, port: 3000}
        volumeMounts:
        - {name: config, mountPath: /etc/guestbook}
      volumes:
      - name: config
        configMap: {name: guestbook-config}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: guestbook}
spec:
  tls:
  - hosts: [guestbook.test]
    secretName: guestbook-tls
  rules:
  - host: guestbook.test
    http:
      paths:
      - path: /
        pathType: Prefix
        backend: {service: {name: frontend, port: {number: 80}}}
"#;

#[test]
fn the_guestbook_works_unchanged_but_for_its_images() {
    let cluster = Cluster::start(&[]);
    for name in ["example.test/redis:6", "example.test/guestbook:v5"] {
        let archive = image::oci_archive(cluster.scratch(), name, &["echo"]);
        let output = run(cluster.meshgate("image load").arg(&archive));
        assert!(output.status.success(), "{}", text(&output));
    }
    let listed = text(&run(&mut cluster.meshgate("image list")));
    assert!(listed.contains("example.test/guestbook:v5"), "{listed}");
    let cert = tls::secret(&cluster, "default", "guestbook-tls", "guestbook.test");
    cluster.apply(GUESTBOOK);
    cluster.kubectl(&["rollout", "status", "deployment/frontend", "--timeout=60s"]);
    cluster.kubectl(&[
        "rollout",
        "status",
        "deployment/redis-leader",
        "--timeout=60s",
    ]);
    let resolve = format!(
        "guestbook.test:{}:127.0.0.1",
        cluster.https().rsplit(':').next().expect("a port")
    );
    let url = format!(
        "https://guestbook.test:{}/hello",
        cluster.https().rsplit(':').next().expect("a port")
    );
    let cacert = cert.display().to_string();
    let body = until("the guestbook over TLS", || {
        let (status, body) = curl(&["--cacert", &cacert, "--resolve", &resolve, &url]);
        (status == 200).then_some(body)
    });
    let reply: serde_json::Value = serde_json::from_str(&body).expect("echo answers JSON");
    assert_eq!(
        reply["service"], "guestbook",
        "the ConfigMap reached the environment: {body}"
    );
    assert_eq!(reply["path"], "/hello");
    until("all three replicas to answer", || {
        curl(&["--cacert", &cacert, "--resolve", &resolve, &url]);
        let logs = cluster.kubectl(&["logs", "-l", "tier=frontend", "--tail=-1", "--prefix"]);
        let answered = logs
            .lines()
            .filter(|l| l.contains("/hello"))
            .filter_map(|l| l.split(' ').next());
        (answered.collect::<std::collections::BTreeSet<_>>().len() == 3).then_some(())
    });
}
