// One Event Hub for both routes, a consumer group only for the daemon, and the roles to send and to receive.

@description('Region of the namespace.')
param location string

@description('Name of the namespace, which is part of its host name.')
@minLength(6)
@maxLength(50)
param namespaceName string

@description('Name of the Event Hub.')
@minLength(1)
@maxLength(256)
param hubName string

@description('Name of the consumer group.')
@minLength(1)
@maxLength(50)
param consumerGroupName string

@description('Tier. The Basic tier has only the default consumer group.')
@allowed([
  'Standard'
  'Premium'
])
param skuName string

@description('Number of throughput units (Standard) or processing units (Premium).')
@minValue(1)
@maxValue(40)
param capacity int

@description('Number of partitions of the Event Hub. Standard cannot change it later.')
@minValue(1)
@maxValue(100)
param partitionCount int

@description('Retention of events in days. A failure must be fixed within this time; otherwise changes are lost.')
@minValue(1)
@maxValue(90)
param retentionDays int

@description('Whether Event Hubs (Standard) adds throughput units automatically, up to maximumThroughputUnits.')
param autoInflate bool

@description('Maximum number of throughput units for autoInflate.')
@minValue(1)
@maxValue(40)
param maximumThroughputUnits int

@description('Object id of the daemon\'s identity.')
param receiverPrincipalId string

@description('Object id of the identity with which the IoT hub sends events.')
param senderPrincipalId string

@description('Tags of the namespace.')
param tags object

var roles = loadJsonContent('../roles.json')
var inflates = autoInflate && skuName == 'Standard'

resource namespace 'Microsoft.EventHub/namespaces@2024-01-01' = {
  name: namespaceName
  location: location
  tags: tags
  sku: {
    name: skuName
    tier: skuName
    capacity: capacity
  }
  properties: {
    // Sender and receiver use tokens. Keys would allow access without a role.
    disableLocalAuth: true
    minimumTlsVersion: '1.2'
    publicNetworkAccess: 'Enabled'
    isAutoInflateEnabled: inflates
    maximumThroughputUnits: inflates ? maximumThroughputUnits : 0
  }
}

// One Event Hub for both routes, so that both kinds of events of a device are in one partition and keep their order.
resource hub 'Microsoft.EventHub/namespaces/eventhubs@2024-01-01' = {
  parent: namespace
  name: hubName
  properties: {
    partitionCount: partitionCount
    retentionDescription: {
      // Compaction would remove events within the retention, and the daemon would treat them as lost.
      cleanupPolicy: 'Delete'
      retentionTimeInHours: retentionDays * 24
    }
  }
}

// A consumer group only for the daemon, because Event Hubs allows five readers per partition and consumer group.
resource group 'Microsoft.EventHub/namespaces/eventhubs/consumergroups@2024-01-01' = {
  parent: hub
  name: consumerGroupName
  properties: {}
}

resource receiver 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: hub
  name: guid(hub.id, receiverPrincipalId, roles['Azure Event Hubs Data Receiver'])
  properties: {
    principalId: receiverPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles['Azure Event Hubs Data Receiver'])
  }
}

resource sender 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: hub
  name: guid(hub.id, senderPrincipalId, roles['Azure Event Hubs Data Sender'])
  properties: {
    principalId: senderPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles['Azure Event Hubs Data Sender'])
  }
}

@description('Fully qualified name of the namespace.')
output namespaceHost string = split(replace(namespace.properties.serviceBusEndpoint, 'https://', ''), ':')[0]

@description('Name of the Event Hub.')
output hubName string = hub.name

@description('Name of the consumer group.')
output consumerGroupName string = group.name
