//! What a new object gets by itself.

use crate::harness::Api;

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_pod_gets_account_token_and_tolerations() {
    let api = Api::start().await;
    let pod = r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
    let pod = api
        .check(
            &format!("POST {PODS}"),
            pod,
            r#"201 spec.serviceAccountName="default" spec.priority=0"#,
        )
        .await;
    let volume = &pod["spec"]["volumes"][0];
    assert_eq!(
        volume["name"],
        pod["spec"]["containers"][0]["volumeMounts"][0]["name"]
    );
    assert_eq!(
        volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
        3607
    );
    assert_eq!(
        volume["projected"]["sources"][1]["configMap"]["name"],
        "kube-root-ca.crt"
    );
    assert_eq!(pod["spec"]["tolerations"][0]["tolerationSeconds"], 300);
    let plain = r#"{"metadata":{"name":"q"},"spec":{"automountServiceAccountToken":false,"containers":[{"name":"c","image":"i"}]}}"#;
    api.check(&format!("POST {PODS}"), plain, "201 spec.volumes=-")
        .await;
    let other = r#"{"metadata":{"name":"r"},"spec":{"serviceAccountName":"nobody","containers":[{"name":"c","image":"i"}]}}"#;
    api.check(&format!("POST {PODS}"), other, r#"403 reason="Forbidden""#)
        .await;
    let class = r#"{"metadata":{"name":"s"},"spec":{"priorityClassName":"none","containers":[{"name":"c","image":"i"}]}}"#;
    api.check(&format!("POST {PODS}"), class, "403").await;
}

#[tokio::test]
async fn an_ingress_gets_the_default_class() {
    let api = Api::start().await;
    let class = r#"{"metadata":{"name":"c","annotations":{"ingressclass.kubernetes.io/is-default-class":"true"}},"spec":{"controller":"a.test/b"}}"#;
    api.create("/apis/networking.k8s.io/v1/ingressclasses", class)
        .await;
    let ingresses = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    let ingress = |name: &str, class: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}"}},"spec":{{{class}"defaultBackend":{{"service":{{"name":"s","port":{{"number":80}}}}}}}}}}"#
        )
    };
    api.check(
        &format!("POST {ingresses}"),
        &ingress("a", ""),
        r#"201 spec.ingressClassName="c""#,
    )
    .await;
    api.check(
        &format!("POST {ingresses}"),
        &ingress("b", r#""ingressClassName":"d","#),
        r#"201 spec.ingressClassName="d""#,
    )
    .await;
}
