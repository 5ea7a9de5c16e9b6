// Two identities without secrets: one for the daemon, and one with which the IoT hub sends events.

@description('Region of the identities.')
param location string

@description('Name of the daemon\'s identity.')
@minLength(3)
@maxLength(128)
param daemonName string

@description('Name of the identity with which the IoT hub sends events.')
@minLength(3)
@maxLength(128)
param routingName string

@description('OIDC issuer of an AKS cluster, from az aks show --query oidcIssuerProfile.issuerUrl. Empty: the identity trusts no cluster.')
param oidcIssuer string

@description('Namespace of the service account in the cluster.')
param serviceAccountNamespace string

@description('Name of the service account in the cluster.')
param serviceAccountName string

@description('Tags of the identities.')
param tags object

resource daemon 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: daemonName
  location: location
  tags: tags
}

// A user-assigned identity, because it can have its role before the hub exists. A system-assigned identity exists, and can have a role, only
// after the hub was created. So a hub with such an endpoint cannot be created.
resource routing 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: routingName
  location: location
  tags: tags
}

// Only one service account of one cluster may use the daemon's identity.
resource federation 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = if (!empty(oidcIssuer)) {
  parent: daemon
  name: 'twinsync-aks'
  properties: {
    issuer: oidcIssuer
    subject: 'system:serviceaccount:${serviceAccountNamespace}:${serviceAccountName}'
    audiences: [
      'api://AzureADTokenExchange'
    ]
  }
}

@description('Resource id of the daemon\'s identity.')
output daemonId string = daemon.id

@description('Client id of the daemon\'s identity.')
output daemonClientId string = daemon.properties.clientId

@description('Object id of the daemon\'s identity, to assign roles.')
output daemonPrincipalId string = daemon.properties.principalId

@description('Resource id of the identity with which the IoT hub sends events.')
output routingId string = routing.id

@description('Object id of the identity with which the IoT hub sends events.')
output routingPrincipalId string = routing.properties.principalId
