//! The files of a volume: configMap, secret, downwardAPI, projected.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection};

use super::VolumeContext;
use super::token::Tokens;
use crate::pod::downward;
use crate::sources::{Known, SourceKey, SourceKind};

/// Mode of files whose volume says none.
const DEFAULT_MODE: i32 = 0o644;

/// Files by path in the volume.
pub(super) type Payload = BTreeMap<String, PayloadFile>;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PayloadFile {
    pub(super) content: Vec<u8>,
    pub(super) mode: u32,
}

/// Why there are no files yet.
#[derive(Debug)]
pub(super) enum PayloadError {
    Loading(SourceKey),
    Failed(String),
}

/// The group that may read a pod's volumes.
pub(super) fn group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// Objects that a pod's volumes show.
pub(crate) fn sources(pod: &Pod) -> Vec<SourceKey> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let key = |kind, name: &str| SourceKey {
        kind,
        namespace: namespace.clone(),
        name: name.to_owned(),
    };
    let mut keys = Vec::new();
    for volume in pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
    {
        if let Some(map) = &volume.config_map {
            keys.push(key(SourceKind::ConfigMap, &map.name));
        }
        if let Some(secret) = &volume.secret {
            keys.push(key(
                SourceKind::Secret,
                secret.secret_name.as_deref().unwrap_or_default(),
            ));
        }
        let projections = volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten());
        for projection in projections {
            if let Some(map) = &projection.config_map {
                keys.push(key(SourceKind::ConfigMap, &map.name));
            }
            if let Some(secret) = &projection.secret {
                keys.push(key(SourceKind::Secret, &secret.name));
            }
        }
    }
    keys
}

/// The files of `volume`, or `None` where it has none of ours.
pub(super) async fn payload(
    volume: &Volume,
    context: &VolumeContext<'_>,
    tokens: &mut Tokens,
) -> Result<Option<Payload>, PayloadError> {
    let mut files = Files {
        context,
        payload: Payload::new(),
    };
    if let Some(map) = &volume.config_map {
        let mode = map.default_mode.unwrap_or(DEFAULT_MODE);
        files.object(
            SourceKind::ConfigMap,
            &map.name,
            map.items.as_deref(),
            map.optional,
            mode,
        )?;
    } else if let Some(secret) = &volume.secret {
        let mode = secret.default_mode.unwrap_or(DEFAULT_MODE);
        let name = secret.secret_name.as_deref().unwrap_or_default();
        files.object(
            SourceKind::Secret,
            name,
            secret.items.as_deref(),
            secret.optional,
            mode,
        )?;
    } else if let Some(api) = &volume.downward_api {
        let mode = api.default_mode.unwrap_or(DEFAULT_MODE);
        files.downward(api.items.iter().flatten(), mode)?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        for projection in projected.sources.iter().flatten() {
            files.projection(projection, mode, tokens).await?;
        }
    } else {
        return Ok(None);
    }
    Ok(Some(files.payload))
}

struct Files<'a> {
    context: &'a VolumeContext<'a>,
    payload: Payload,
}

impl Files<'_> {
    async fn projection(
        &mut self,
        projection: &VolumeProjection,
        mode: i32,
        tokens: &mut Tokens,
    ) -> Result<(), PayloadError> {
        if let Some(map) = &projection.config_map {
            self.object(
                SourceKind::ConfigMap,
                &map.name,
                map.items.as_deref(),
                map.optional,
                mode,
            )?;
        }
        if let Some(secret) = &projection.secret {
            self.object(
                SourceKind::Secret,
                &secret.name,
                secret.items.as_deref(),
                secret.optional,
                mode,
            )?;
        }
        if let Some(api) = &projection.downward_api {
            self.downward(api.items.iter().flatten(), mode)?;
        }
        if let Some(wanted) = &projection.service_account_token {
            let token = tokens
                .token(
                    self.context.client,
                    self.context.pod,
                    wanted.audience.as_deref(),
                    wanted.expiration_seconds,
                )
                .await
                .map_err(|error| PayloadError::Failed(error.to_string()))?;
            self.add(&wanted.path, token.into_bytes(), mode)?;
        }
        if projection.cluster_trust_bundle.is_some() || projection.pod_certificate.is_some() {
            return Err(PayloadError::Failed(
                "projections of trust bundles and pod certificates are not supported".to_owned(),
            ));
        }
        Ok(())
    }

    fn object(
        &mut self,
        kind: SourceKind,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<(), PayloadError> {
        let key = SourceKey {
            kind,
            namespace: self
                .context
                .pod
                .metadata
                .namespace
                .clone()
                .unwrap_or_default(),
            name: name.to_owned(),
        };
        let optional = optional.unwrap_or(false);
        let data = match (self.context.known)(&key) {
            Known::Here(data) => data,
            Known::Loading => return Err(PayloadError::Loading(key)),
            Known::Missing if optional => return Ok(()),
            Known::Missing => return Err(PayloadError::Failed(format!("{key} not found"))),
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for (name, content) in data.iter() {
                self.add(name, content.clone(), mode)?;
            }
            return Ok(());
        };
        for item in items {
            match data.get(&item.key) {
                Some(content) => {
                    self.add(&item.path, content.clone(), item.mode.unwrap_or(mode))?
                }
                None if optional => {}
                None => {
                    return Err(PayloadError::Failed(format!(
                        "references non-existent key {:?} of {key}",
                        item.key
                    )));
                }
            }
        }
        Ok(())
    }

    fn downward<'i>(
        &mut self,
        items: impl Iterator<Item = &'i DownwardAPIVolumeFile>,
        mode: i32,
    ) -> Result<(), PayloadError> {
        let (pod, node) = (self.context.pod, self.context.node);
        for item in items {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => {
                    downward::field(pod, node, self.context.pod_ip.as_deref(), &field.field_path)
                }
                (None, Some(resource)) => downward::resource(pod, node, None, resource),
                (None, None) => continue,
            };
            let value = value.map_err(PayloadError::Failed)?;
            self.add(&item.path, value.into_bytes(), item.mode.unwrap_or(mode))?;
        }
        Ok(())
    }

    fn add(&mut self, path: &str, content: Vec<u8>, mode: i32) -> Result<(), PayloadError> {
        let plain = Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if path.is_empty() || !plain || path.starts_with("..") {
            return Err(PayloadError::Failed(format!(
                "the path {path:?} leads outside of the volume"
            )));
        }
        let mode = u32::try_from(mode).unwrap_or(0) & 0o777;
        self.payload
            .insert(path.to_owned(), PayloadFile { content, mode });
        Ok(())
    }
}
