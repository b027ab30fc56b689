//! What a change marks for compilation.

use std::{collections::BTreeSet, sync::Arc};

use meshgate_api::{
    names,
    policies::{TargetRef, backend::CaKind},
};

use super::{
    Compiler, Subject, SubjectKind, Unit,
    access::Holding,
    index::{self, MultiMap, Referent, Target, TargetKind},
    tls,
};
use crate::objects::{
    AccessPolicy, BackendPolicy, Change, ClassName, ConfigMap, Difference, EndpointSlice, Ingress,
    IngressClass, Kind, Known, Name, Object, Pod, RateLimitPolicy, Secret, Service, in_namespace,
};

impl Compiler {
    pub(super) fn take(&mut self, change: Change) {
        match change {
            Change::Apply(name, object) => self.put(name, *object),
            Change::Delete(kind, name) => self.delete(kind, &name),
            Change::Unreadable(kind, name, why) => self.unreadable(kind, &name, why),
            Change::Listed(kind, listed) => {
                let gone = self.objects.names(kind);
                for name in gone.iter().filter(|name| !listed.contains(*name)) {
                    self.delete(kind, name);
                }
            }
        }
    }

    fn put(&mut self, name: Name, object: Object) {
        match object {
            Object::Service(service) => self.service_changed(name, Some(service)),
            Object::EndpointSlice(slice) => self.slice_changed(name, Some(slice)),
            Object::Pod(pod) => self.pod_changed(name, Some(pod)),
            Object::Ingress(ingress) => self.ingress_changed(name, Some(ingress)),
            Object::IngressClass(class) => self.class_changed(name, Some(class)),
            Object::Secret(secret) => self.secret_changed(&name, Known::Present(secret)),
            Object::ConfigMap(map) => self.config_map_changed(&name, Known::Present(map)),
            Object::RateLimitPolicy(policy) => self.rate_limit_changed(name, Some(policy)),
            Object::BackendPolicy(policy) => self.backend_changed(name, Some(*policy)),
            Object::AccessPolicy(policy) => self.access_changed(name, Some(policy)),
        }
    }

    fn delete(&mut self, kind: Kind, name: &Name) {
        match kind {
            Kind::Service => self.service_changed(name.clone(), None),
            Kind::EndpointSlice => self.slice_changed(name.clone(), None),
            Kind::Pod => self.pod_changed(name.clone(), None),
            Kind::Ingress => self.ingress_changed(name.clone(), None),
            Kind::IngressClass => self.class_changed(name.clone(), None),
            Kind::Secret => self.secret_changed(name, Known::Missing),
            Kind::ConfigMap => self.config_map_changed(name, Known::Missing),
            Kind::RateLimitPolicy => self.rate_limit_changed(name.clone(), None),
            Kind::BackendPolicy => self.backend_changed(name.clone(), None),
            Kind::AccessPolicy => self.access_changed(name.clone(), None),
        }
    }

    fn unreadable(&mut self, kind: Kind, name: &Name, why: Arc<str>) {
        match kind {
            Kind::Secret => self.secret_changed(name, Known::Unreadable(why)),
            Kind::ConfigMap => self.config_map_changed(name, Known::Unreadable(why)),
            // Of these there are lists, which are waited for.
            _ => {}
        }
    }

    fn service_changed(&mut self, name: Name, service: Option<Service>) {
        let before = self.objects.services.remove(&name);
        if before == service {
            return store(&mut self.objects.services, name, service);
        }
        let callable = |service: &Service| (service.ports.clone(), service.external_name);
        if before.as_ref().map(callable) != service.as_ref().map(callable) {
            // Only then can a rule that names the Service come to something else.
            let ingresses: Vec<_> = self.index.backends.at(&name).cloned().collect();
            for ingress in ingresses {
                self.touch_hosts_of(&ingress);
                self.touch_report(SubjectKind::Ingress, &ingress);
            }
        }
        let target = Target {
            kind: TargetKind::Service,
            name: name.clone(),
        };
        let selector = |service: &Service| service.selector.clone();
        if before.as_ref().map(selector) != service.as_ref().map(selector)
            && self.index.access_targets.contains_key(&target)
        {
            self.touch_pods_of(&name.namespace);
            // Policies may meet at other pods now.
            self.touch_access_reports(&name.namespace);
        }
        self.touch_reports_of_targets(&target);
        self.dirty.insert(Unit::Service(name.clone()));
        store(&mut self.objects.services, name, service);
    }

    fn slice_changed(&mut self, name: Name, slice: Option<EndpointSlice>) {
        let before = self.objects.slices.remove(&name);
        if let Some(before) = &before {
            self.put_slice(&name, before, false);
        }
        if before != slice {
            for slice in before.iter().chain(&slice) {
                self.touch_endpoints(name.sibling(&slice.service));
            }
        }
        if let Some(slice) = &slice {
            self.put_slice(&name, slice, true);
        }
        store(&mut self.objects.slices, name, slice);
    }

    /// The Service's endpoints, and what policies say of which they are.
    fn touch_endpoints(&mut self, service: Name) {
        let target = Target {
            kind: TargetKind::Service,
            name: service,
        };
        let proxied = |name: &&Name| {
            let policy = self.objects.backend_policies.get(*name);
            let spec = policy.and_then(|policy| policy.spec.as_ref());
            spec.is_some_and(|spec| spec.proxy_protocol.is_some())
        };
        let policies = self.index.backend_targets.at(&target).filter(proxied);
        let reports =
            policies.map(|name| Unit::Report(Subject::new(SubjectKind::BackendPolicy, name)));
        let reports: Vec<_> = reports.collect();
        self.dirty.extend(reports);
        self.dirty.insert(Unit::Service(target.name));
    }

    fn put_slice(&mut self, name: &Name, slice: &EndpointSlice, present: bool) {
        self.index
            .slices
            .put(&name.sibling(&slice.service), name, present);
        for pod in slice
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint.pod.as_ref())
        {
            self.index
                .pod_slices
                .put(&name.sibling(&pod.name), name, present);
        }
    }

    fn pod_changed(&mut self, name: Name, pod: Option<Pod>) {
        if self.objects.pods.get(&name) == pod.as_ref() {
            return;
        }
        let slices = self.index.pod_slices.at(&name);
        let services = slices.filter_map(|slice| self.objects.slices.get(slice));
        let services: Vec<_> = services.map(|slice| name.sibling(&slice.service)).collect();
        services
            .into_iter()
            .for_each(|service| self.touch_endpoints(service));
        let before = self.objects.pods.get(&name);
        // Policies select by labels; what else is known of a pod they do not report.
        if before.map(|pod| &pod.labels) != pod.as_ref().map(|pod| &pod.labels) {
            let pods = before.into_iter().chain(&pod);
            let policies = pods.flat_map(|pod| self.access_policies(&name, pod));
            let report = |of: Holding<'_>| Subject::new(SubjectKind::AccessPolicy, of.name);
            let reports: Vec<_> = policies.map(report).map(Unit::Report).collect();
            self.dirty.extend(reports);
        }
        self.dirty.insert(Unit::Pod(name.clone()));
        store(&mut self.objects.pods, name, pod);
    }

    fn ingress_changed(&mut self, name: Name, ingress: Option<Ingress>) {
        let before = self.objects.ingresses.remove(&name);
        let only_status = match (&before, &ingress) {
            (Some(before), Some(after)) => {
                before
                    == &Ingress {
                        addresses: before.addresses.clone(),
                        ..after.clone()
                    }
            }
            _ => false,
        };
        self.touch_report(SubjectKind::Ingress, &name);
        if only_status {
            return store(&mut self.objects.ingresses, name, ingress);
        }
        if let Some(before) = before
            && self.index.owned.contains(&name)
        {
            self.touch_ingress(&name, &before);
            self.index.put_ingress(&name, &before, false);
        }
        if let Some(ingress) = &ingress
            && self.owns(ingress)
        {
            self.index.put_ingress(&name, ingress, true);
            self.touch_ingress(&name, ingress);
        }
        store(&mut self.objects.ingresses, name, ingress);
    }

    fn touch_ingress(&mut self, name: &Name, ingress: &Ingress) {
        let hosts = index::hosts(ingress);
        self.dirty.extend(hosts.into_iter().map(Unit::Host));
        // Another Secret may have to give up a host to this one, or get it back.
        let tls_hosts: BTreeSet<Arc<str>> = ingress
            .tls
            .iter()
            .flat_map(|tls| index::tls_hosts(ingress, &tls.hosts))
            .collect();
        let rivals = tls_hosts
            .iter()
            .flat_map(|host| self.index.tls_hosts.at(host));
        let rivals: BTreeSet<Name> = rivals.filter(|rival| *rival != name).cloned().collect();
        let own = ingress
            .tls
            .iter()
            .filter_map(|tls| tls.secret.as_ref())
            .map(|secret| name.sibling(secret));
        let mut secrets: BTreeSet<Name> = own.collect();
        for rival in &rivals {
            let ingress = self.objects.ingresses.get(rival);
            let named = ingress
                .iter()
                .flat_map(|ingress| &ingress.tls)
                .filter_map(|tls| tls.secret.as_ref());
            secrets.extend(named.map(|secret| rival.sibling(secret)));
            self.dirty.insert(Unit::Report(Subject::ingress(rival)));
        }
        self.dirty.extend(secrets.into_iter().map(Unit::Secret));
        self.touch_reports_of_targets(&Target {
            kind: TargetKind::Ingress,
            name: name.clone(),
        });
    }

    /// Classes change rarely: every Ingress is asked again.
    fn class_changed(&mut self, name: Name, class: Option<IngressClass>) {
        if self.objects.classes.get(&name) == class.as_ref() {
            return;
        }
        store(&mut self.objects.classes, name, class);
        for name in self.objects.names(Kind::Ingress) {
            let ingress = self.objects.ingresses.remove(&name);
            if let Some(ingress) = &ingress
                && self.owns(ingress) != self.index.owned.contains(&name)
            {
                let own = self.owns(ingress);
                self.touch_ingress(&name, ingress);
                self.index.put_ingress(&name, ingress, own);
                self.touch_ingress(&name, ingress);
                self.touch_report(SubjectKind::Ingress, &name);
            }
            store(&mut self.objects.ingresses, name, ingress);
        }
    }

    /// Whether an Ingress is ours to serve.
    fn owns(&self, ingress: &Ingress) -> bool {
        let class = |name: &str| self.objects.classes.get(&Name::new("", name));
        match &ingress.class {
            ClassName::Field(name) => class(name).is_some_and(|class| class.ours),
            ClassName::Annotation(name) => {
                class(name).map_or(name == names::INGRESS_CLASS, |class| class.ours)
            }
            ClassName::Absent => self
                .objects
                .classes
                .values()
                .any(|class| class.ours && class.default),
        }
    }

    fn secret_changed(&mut self, name: &Name, secret: Known<Secret>) {
        // Wanted before: something else in the same batch may refer to it again.
        let wanted = self.index.wants_secret(name) || self.secrets_wanted.contains(name);
        if !wanted || self.objects.secrets.get(name) == Some(&secret) {
            return;
        }
        self.objects.secrets.insert(name.clone(), secret);
        self.dirty.insert(Unit::Secret(name.clone()));
        let ingresses = self.index.secrets.at(name).map(Subject::ingress);
        self.dirty.extend(ingresses.map(Unit::Report));
        self.touch_authorities(CaKind::Secret, name);
    }

    fn config_map_changed(&mut self, name: &Name, map: Known<ConfigMap>) {
        let wanted = self.index.wants_authorities(CaKind::ConfigMap, name)
            || self.config_maps_wanted.contains(name);
        if !wanted || self.objects.config_maps.get(name) == Some(&map) {
            return;
        }
        self.objects.config_maps.insert(name.clone(), map);
        self.touch_authorities(CaKind::ConfigMap, name);
    }

    /// Services whose endpoints are verified by what is in an object, and what is said of that.
    fn touch_authorities(&mut self, kind: CaKind, name: &Name) {
        let name = name.clone();
        let policies = self.index.authorities.at(&Referent { kind, name });
        for policy in policies {
            let known = self.objects.backend_policies.get(policy);
            let refs = known.map(BackendPolicy::targets).unwrap_or_default();
            let services = targets(policy, refs);
            self.dirty.extend(
                services
                    .into_iter()
                    .map(|target| Unit::Service(target.name)),
            );
            let report = Subject::new(SubjectKind::BackendPolicy, policy);
            self.dirty.insert(Unit::Report(report));
        }
    }

    fn rate_limit_changed(&mut self, name: Name, mut policy: Option<RateLimitPolicy>) {
        let before = self.objects.rate_limit_policies.remove(&name);
        self.touch_report(SubjectKind::RateLimitPolicy, &name);
        if let Some(policy) = &mut policy
            && policy.follows(before.as_ref()) == Difference::Status
        {
            return store(
                &mut self.objects.rate_limit_policies,
                name,
                Some(policy.clone()),
            );
        }
        for (policy, present) in [(&before, false), (&policy, true)] {
            let Some(policy) = policy else { continue };
            for target in targets(&name, policy.targets()) {
                self.touch_hosts_of(&target.name);
                self.touch_reports_of_targets(&target);
                self.index.rate_limit_targets.put(&target, &name, present);
            }
        }
        store(&mut self.objects.rate_limit_policies, name, policy);
    }

    fn backend_changed(&mut self, name: Name, mut policy: Option<BackendPolicy>) {
        let before = self.objects.backend_policies.remove(&name);
        self.touch_report(SubjectKind::BackendPolicy, &name);
        if let Some(policy) = &mut policy
            && policy.follows(before.as_ref()) == Difference::Status
        {
            return store(
                &mut self.objects.backend_policies,
                name,
                Some(policy.clone()),
            );
        }
        for (policy, present) in [(&before, false), (&policy, true)] {
            let Some(policy) = policy else { continue };
            for target in targets(&name, policy.targets()) {
                self.dirty.insert(Unit::Service(target.name.clone()));
                self.touch_reports_of_targets(&target);
                self.index.backend_targets.put(&target, &name, present);
            }
            let tls = policy.spec.as_ref().and_then(|spec| spec.tls.as_deref());
            for referent in tls::referents(&name, tls) {
                self.index.authorities.put(&referent, &name, present);
                self.dirty.insert(match referent.kind {
                    CaKind::ConfigMap => Unit::ConfigMap(referent.name),
                    CaKind::Secret => Unit::Secret(referent.name),
                });
            }
        }
        store(&mut self.objects.backend_policies, name, policy);
    }

    fn access_changed(&mut self, name: Name, mut policy: Option<AccessPolicy>) {
        let before = self.objects.access_policies.remove(&name);
        self.touch_report(SubjectKind::AccessPolicy, &name);
        if let Some(policy) = &mut policy
            && policy.follows(before.as_ref()) == Difference::Status
        {
            return store(
                &mut self.objects.access_policies,
                name,
                Some(policy.clone()),
            );
        }
        for (policy, present) in [(&before, false), (&policy, true)] {
            let Some(policy) = policy else { continue };
            for target in targets(&name, policy.targets()) {
                if target.kind == TargetKind::Ingress {
                    self.touch_hosts_of(&target.name);
                }
                self.index.access_targets.put(&target, &name, present);
            }
        }
        // A selector can mean any pod of the namespace; unchanged ones come to the same and are not pushed.
        self.touch_pods_of(&name.namespace);
        self.touch_access_reports(&name.namespace);
        store(&mut self.objects.access_policies, name, policy);
    }

    pub(super) fn touch_limited_hosts(&mut self) {
        let limited: Vec<_> = self
            .index
            .rate_limit_targets
            .keys()
            .map(|target| target.name.clone())
            .collect();
        for ingress in limited {
            self.touch_hosts_of(&ingress);
        }
    }

    fn touch_hosts_of(&mut self, ingress: &Name) {
        if let Some(ingress) = self.objects.ingresses.get(ingress)
            && !ingress.rules.is_empty() | ingress.default_backend.is_some()
        {
            self.dirty
                .extend(index::hosts(ingress).into_iter().map(Unit::Host));
        }
    }

    fn touch_pods_of(&mut self, namespace: &str) {
        let pods = in_namespace(&self.objects.pods, namespace);
        self.dirty
            .extend(pods.map(|(name, _)| Unit::Pod(name.clone())));
    }

    fn touch_access_reports(&mut self, namespace: &str) {
        let policies = in_namespace(&self.objects.access_policies, namespace);
        let reports =
            policies.map(|(name, _)| Unit::Report(Subject::new(SubjectKind::AccessPolicy, name)));
        self.dirty.extend(reports);
    }

    fn touch_reports_of_targets(&mut self, target: &Target) {
        let by_kind: [(&MultiMap<Target, Name>, SubjectKind); 3] = [
            (&self.index.rate_limit_targets, SubjectKind::RateLimitPolicy),
            (&self.index.backend_targets, SubjectKind::BackendPolicy),
            (&self.index.access_targets, SubjectKind::AccessPolicy),
        ];
        for (targets, kind) in by_kind {
            let policies = targets.at(target);
            self.dirty
                .extend(policies.map(|name| Unit::Report(Subject::new(kind, name))));
        }
    }

    fn touch_report(&mut self, kind: SubjectKind, name: &Name) {
        self.dirty.insert(Unit::Report(Subject::new(kind, name)));
    }
}

fn targets(policy: &Name, refs: &[TargetRef]) -> BTreeSet<Target> {
    refs.iter()
        .filter_map(|target| Target::of(policy, target))
        .collect()
}

fn store<T>(map: &mut std::collections::BTreeMap<Name, T>, name: Name, object: Option<T>) {
    match object {
        Some(object) => drop(map.insert(name, object)),
        None => drop(map.remove(&name)),
    }
}
